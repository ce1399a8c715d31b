"""A Hub on loopback for tests, with the files that the course's own repositories have on the real one.

Weights and texts are small and made up; names of files, keys of weights, configurations and cards are as documented for
the pinned commits. Assumed: files in Git LFS come by a redirect and never from Xet storage, whose client then takes the
plain way.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import threading
from dataclasses import dataclass, field
from pathlib import Path

from utils import hub, tiny

COMMIT = "0123456789abcdef0123456789abcdef01234567"  # of a repository that is not pinned
LARGE = (".safetensors", ".parquet", ".bin")  # what the Hub keeps in Git LFS


@dataclass
class FakeHub:
    """What is served, and how it fails."""

    folders: dict[str, Path]  # "models/owner/name" or "datasets/owner/name": a folder
    prefix: str = ""  # of all paths, as a mirror may have
    answers: dict[str, tuple[int, dict]] = field(default_factory=dict)  # part of a path: status and headers instead
    cut: set[str] = field(default_factory=set)  # files that break off half-way, once each
    broken: set[str] = field(default_factory=set)  # files that break off after a few bytes, each time
    requests: list[str] = field(default_factory=list)  # paths that were asked for
    proxied: int = 0  # how many of them came as to a proxy
    url: str = ""
    cdn: str = ""  # where files in LFS really are: on the real Hub another host

    def find(self, path: str) -> tuple[str, str]:
        """ "models/owner/name", and what follows it in an API path or a file's address."""
        path = path.removeprefix("/api/").lstrip("/")
        if not path.startswith(("models/", "datasets/")):
            path = f"models/{path}"
        parts = path.split("/", 3)
        return "/".join(parts[:3]), parts[3] if len(parts) > 3 else ""

    def commit(self, name: str) -> str:
        return hub.REVISIONS.get(name.split("/", 1)[1], COMMIT)


@contextlib.contextmanager
def serve(folders: dict[str, Path], **faults):
    """Serve `folders`; yields the FakeHub, whose `url` is the endpoint."""
    fake = FakeHub(folders, **faults)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args):
            pass

        def do_HEAD(self):
            self.answer()

        def do_GET(self):
            self.answer()

        def answer(self):
            path = self.path.split("?")[0]
            if path.startswith("http://"):
                fake.proxied += 1
                path = "/" + path.split("/", 3)[3]
            fake.requests.append(path)
            if not path.startswith(fake.prefix):
                return self.error(404, "NotTheMirror")
            path = path.removeprefix(fake.prefix)
            for part, (status, headers) in fake.answers.items():
                if part in path:
                    return self.send(status, b'{"error":"as told"}', headers)
            if path in ("", "/"):
                return self.send(200, b"")
            if path.startswith("/cdn/"):
                _, _, folder, name = path.split("/", 3)
                return self.send_file(list(fake.folders.values())[int(folder)] / name)
            repository, rest = fake.find(path)
            if repository not in fake.folders:
                return self.error(401, "RepoNotFound")
            folder, commit = fake.folders[repository], fake.commit(repository)
            verb, revision, *name = rest.split("/", 2) if rest else ("revision", "main")
            if revision not in ("main", commit):
                return self.error(404, "RevisionNotFound")
            if verb == "tree":
                return self.send(200, json.dumps([describe(p, folder) for p in sorted(folder.rglob("*"))]).encode())
            if verb == "revision":
                return self.send(200, json.dumps({
                    "id": repository.split("/", 1)[1], "sha": commit, "private": False, "tags": [], "downloads": 0,
                    "siblings": [{"rfilename": p.relative_to(folder).as_posix()} for p in folder.rglob("*")
                                 if p.is_file()]}).encode())
            file = folder / name[0]
            headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
            if not file.is_file():
                return self.error(404, "EntryNotFound", headers)
            if file.suffix in LARGE:
                return self.send(302, b"", headers | {
                    "X-Linked-Size": str(file.stat().st_size), "X-Linked-Etag": f'"{sha(file, hashlib.sha256)}"',
                    "Location": f"{fake.cdn}/{list(fake.folders).index(repository)}/{name[0]}"})
            return self.send_file(file, headers | {"ETag": f'"{sha(file)}"'})

        def send_file(self, file: Path, headers: dict | None = None):
            data = file.read_bytes()
            start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
            headers = headers or {"ETag": f'"{sha(file, hashlib.sha256)}"', "Accept-Ranges": "bytes"}
            if start:
                headers = headers | {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
            keep = None
            if self.command == "GET" and file.name in fake.broken:
                keep = 10
            elif self.command == "GET" and file.name in fake.cut:
                fake.cut.remove(file.name)
                keep = len(data) // 2
            self.send(206 if start else 200, data[start:], headers, keep)

        def error(self, status: int, code: str, headers: dict | None = None):
            self.send(status, json.dumps({"error": code}).encode(), {"X-Error-Code": code, "X-Error-Message": code,
                                                                     **(headers or {})})

        def send(self, status: int, body: bytes, headers: dict | None = None, keep: int | None = None):
            self.send_response(status)
            for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body[:keep])
            if keep is not None:
                self.close_connection = True

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    fake.url = f"http://127.0.0.1:{server.server_address[1]}{fake.prefix}"
    fake.cdn = f"http://localhost:{server.server_address[1]}{fake.prefix}/cdn"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()


def describe(path: Path, folder: Path) -> dict:
    """A file or folder as the Hub's tree lists it."""
    name = path.relative_to(folder).as_posix()
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": COMMIT, "size": 0}
    about = {"type": "file", "path": name, "oid": sha(path), "size": path.stat().st_size}
    if path.suffix in LARGE:
        about["lfs"] = {"oid": sha(path, hashlib.sha256), "size": about["size"], "pointerSize": 135}
    return about


def sha(path: Path, algorithm=hashlib.sha1) -> str:
    return algorithm(path.read_bytes()).hexdigest()


# The course's own repositories


def default_repositories(root: Path) -> dict[str, Path]:
    """Write all of them below `root`; returns what `serve` takes."""
    makers = {"models/google-bert/bert-base-uncased": bert, "models/openai-community/gpt2": gpt2,
              "models/HuggingFaceTB/SmolLM2-135M-Instruct": smollm2,
              "models/sentence-transformers/all-MiniLM-L6-v2": minilm,
              "datasets/cornell-movie-review-data/rotten_tomatoes": rotten_tomatoes, "datasets/stanfordnlp/imdb": imdb}
    for name, make in makers.items():
        (root / name).mkdir(parents=True)
        make(root / name)
    return {name: root / name for name in makers}


def put(folder: Path, files: dict[str, dict | list | str]) -> None:
    """Write small files; a dict or list becomes JSON."""
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content if isinstance(content, str) else json.dumps(content, indent=2), encoding="utf-8")


def unwanted(folder: Path, *names: str) -> None:
    """Files of the real repository that nothing of the course may fetch."""
    put(folder, dict.fromkeys((".gitattributes", "README.md", *names), "not to be fetched"))


def write_weights(folder: Path, weights: dict) -> None:
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous().clone() for name, tensor in weights.items()}, folder / "model.safetensors",
              metadata={"format": "pt"})


def bert(folder: Path) -> None:
    """BertForPreTraining's weights with LayerNorm's old names, under a configuration that says BertForMaskedLM."""
    from transformers import BertConfig, BertForPreTraining

    tiny.save("encoder", folder)
    size = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128,
            "max_position_embeddings": 512, "vocab_size": json.loads((folder / "config.json").read_text())["vocab_size"]}
    weights = BertForPreTraining(BertConfig(**size)).state_dict()
    write_weights(folder, {name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"):
                           tensor for name, tensor in weights.items()
                           if "position_ids" not in name and "predictions.decoder" not in name})
    put(folder, {
        "config.json": {"architectures": ["BertForMaskedLM"], "attention_probs_dropout_prob": 0.1,
                        "gradient_checkpointing": False, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
                        "initializer_range": 0.02, "layer_norm_eps": 1e-12, "model_type": "bert", "pad_token_id": 0,
                        "position_embedding_type": "absolute", "transformers_version": "4.6.0.dev0",
                        "type_vocab_size": 2, "use_cache": True, **size},
        "tokenizer_config.json": {"do_lower_case": True, "model_max_length": 512},
        "vocab.txt": vocabulary(folder)})
    unwanted(folder, "pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "rust_model.ot", "model.onnx", "LICENSE",
             "coreml/fill-mask/float32_model.mlpackage/Manifest.json")


def vocabulary(folder: Path) -> str:
    """A WordPiece tokenizer's vocab.txt."""
    vocab = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    return "".join(f"{piece}\n" for piece in sorted(vocab, key=vocab.get))


def gpt2(folder: Path) -> None:
    """GPT2Model's weights without a prefix, with its old buffers, and a tokenizer that has no padding token."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    tiny.save("decoder", folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    end = tokenizer["model"]["vocab"]["<|endoftext|>"]
    size = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 1024, "vocab_size": end + 1, "bos_token_id": end,
            "eos_token_id": end}
    weights = GPT2LMHeadModel(GPT2Config(**size)).state_dict()
    weights = {name.removeprefix("transformer."): tensor for name, tensor in weights.items() if "lm_head" not in name}
    mask = torch.tril(torch.ones(1024, 1024)).view(1, 1, 1024, 1024)
    write_weights(folder, weights | {f"h.{layer}.attn.bias": mask for layer in range(2)})
    put(folder, {
        "config.json": {"activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1,
                        "embd_pdrop": 0.1, "initializer_range": 0.02, "layer_norm_epsilon": 1e-05,
                        "model_type": "gpt2", "n_ctx": 1024, "resid_pdrop": 0.1, "summary_first_dropout": 0.1,
                        "summary_proj_to_labels": True, "summary_type": "cls_index", "summary_use_proj": True,
                        "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}}, **size},
        "generation_config.json": {"_from_model_config": True, "bos_token_id": end, "eos_token_id": end,
                                   "transformers_version": "4.26.0.dev0"},
        "tokenizer_config.json": {"model_max_length": 1024},
        "vocab.json": tokenizer["model"]["vocab"], "merges.txt": "#version: 0.2\n"})
    unwanted(folder, "64.tflite", "64-8bits.tflite", "64-fp16.tflite", "pytorch_model.bin", "tf_model.h5",
             "flax_model.msgpack", "rust_model.ot", "onnx/config.json", "onnx/decoder_model.onnx", "onnx/tokenizer.json")


def smollm2(folder: Path) -> None:
    """A Llama in bfloat16 with tied embeddings, and the chat template inside of tokenizer_config.json."""
    import torch
    from tokenizers import pre_tokenizers
    from transformers import GPT2Tokenizer, LlamaConfig, LlamaForCausalLM

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    pieces = special + sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = GPT2Tokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[], unk_token=special[0])
    tokenizer.add_special_tokens({"additional_special_tokens": special[1:]})
    tokenizer.save_pretrained(folder)
    size = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "intermediate_size": 128, "max_position_embeddings": 8192, "vocab_size": len(pieces), "bos_token_id": 1,
            "eos_token_id": 2, "pad_token_id": 2, "tie_word_embeddings": True}
    weights = LlamaForCausalLM(LlamaConfig(**size)).to(torch.bfloat16).state_dict()
    write_weights(folder, {name: tensor for name, tensor in weights.items() if "lm_head" not in name})
    put(folder, {
        "config.json": {"architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
                        "hidden_act": "silu", "initializer_range": 0.041666666666666664, "is_llama_config": True,
                        "mlp_bias": False, "model_type": "llama", "pretraining_tp": 1, "rms_norm_eps": 1e-05,
                        "rope_interleaved": False, "rope_scaling": None, "rope_theta": 100000,
                        "torch_dtype": "bfloat16", "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}},
                        "transformers_version": "4.42.3", "use_cache": True, **size},
        "generation_config.json": {"_from_model_config": True, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
                                   "transformers_version": "4.42.3"},
        "special_tokens_map.json": {"additional_special_tokens": special[1:], "bos_token": "<|im_start|>",
                                    "eos_token": "<|im_end|>", "pad_token": "<|im_end|>", "unk_token": "<|endoftext|>"},
        "tokenizer_config.json": {
            "add_prefix_space": False, "additional_special_tokens": special[1:], "bos_token": "<|im_start|>",
            "added_tokens_decoder": {str(i): {"content": token, "lstrip": False, "normalized": False, "rstrip": False,
                                              "single_word": False, "special": True} for i, token in enumerate(special)},
            "chat_template": "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
                             "{{ '<|im_start|>system\nYou are a small model.<|im_end|>\n' }}{% endif %}"
                             "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
                             "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
            "clean_up_tokenization_spaces": False, "eos_token": "<|im_end|>", "model_max_length": 8192,
            "pad_token": "<|im_end|>", "tokenizer_class": "GPT2Tokenizer", "unk_token": "<|endoftext|>",
            "vocab_size": len(pieces)},
        "vocab.json": {piece: i for i, piece in enumerate(pieces)}, "merges.txt": "#version: 0.2\n"})
    unwanted(folder, "onnx/model.onnx", "onnx/model_q4f16.onnx", "runs/Aug18_11-44-40/events.out", "training_args.bin")


def minilm(folder: Path) -> None:
    """BertModel's weights without a prefix, a buffer among them, and the files of sentence-transformers."""
    import torch
    from transformers import BertConfig, BertModel

    tiny.save("encoder", folder)
    size = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128,
            "max_position_embeddings": 512, "vocab_size": json.loads((folder / "config.json").read_text())["vocab_size"]}
    weights = BertModel(BertConfig(**size)).state_dict()
    write_weights(folder, weights | {"embeddings.position_ids": torch.arange(512)[None]})
    marks = {"cls_token": "[CLS]", "mask_token": "[MASK]", "pad_token": "[PAD]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    put(folder, {
        "config.json": {"_name_or_path": "nreimers/MiniLM-L6-H384-uncased", "architectures": ["BertModel"],
                        "attention_probs_dropout_prob": 0.1, "gradient_checkpointing": False, "hidden_act": "gelu",
                        "hidden_dropout_prob": 0.1, "initializer_range": 0.02, "layer_norm_eps": 1e-12,
                        "model_type": "bert", "pad_token_id": 0, "position_embedding_type": "absolute",
                        "transformers_version": "4.8.2", "type_vocab_size": 2, "use_cache": True, **size},
        "tokenizer_config.json": {"do_lower_case": True, "model_max_length": 512, "name_or_path":
                                  "nreimers/MiniLM-L6-H384-uncased", "never_split": None, "special_tokens_map_file":
                                  "/tmp/special_tokens_map.json", "strip_accents": None, "tokenize_chinese_chars": True,
                                  "tokenizer_class": "BertTokenizer", **marks},
        "special_tokens_map.json": marks, "vocab.txt": vocabulary(folder),
        "modules.json": [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}],
        "sentence_bert_config.json": {"max_seq_length": 256, "do_lower_case": False}, "data_config.json": []})
    unwanted(folder, "1_Pooling/config.json", "onnx/model.onnx", "openvino/openvino_model.bin", "pytorch_model.bin",
             "rust_model.ot", "tf_model.h5", "train_script.py")


def write_reviews(file: Path, rows: list[tuple[str, int]]) -> None:
    import pyarrow
    from pyarrow import parquet

    file.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.table({"text": [text for text, _ in rows], "label": [label for _, label in rows]})
    parquet.write_table(table, file)


FEATURES = """  features:
  - name: text
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': neg
          '1': pos
"""


def rotten_tomatoes(folder: Path) -> None:
    """Three files at the top; the card describes the columns and names no files."""
    rows = list(zip(*tiny.reviews(1), strict=True))
    sizes = {"train": rows[:600], "validation": rows[600:720], "test": rows[720:]}
    for split, part in sizes.items():
        write_reviews(folder / f"{split}.parquet", part)
    splits = "".join(f"  - name: {split}\n    num_bytes: {1000 * len(part)}\n    num_examples: {len(part)}\n"
                     for split, part in sizes.items())
    put(folder, {"README.md": "---\nlanguage:\n- en\ntask_categories:\n- text-classification\npretty_name: RottenTomatoes\n"
                 f"dataset_info:\n{FEATURES}  splits:\n{splits}train-eval-index:\n- config: default\n"
                 "  task: text-classification\n  task_id: binary_classification\n  splits:\n    train_split: train\n"
                 "    eval_split: test\n  col_mapping:\n    text: text\n    label: target\n---\n# Movie reviews\n"})


def imdb(folder: Path) -> None:
    """A third split without labels, which the card's list of files names as well."""
    rows = list(zip(*tiny.reviews(2), strict=True))
    for split, part in (("train", rows[:420]), ("test", rows[420:]), ("unsupervised", [(t, -1) for t, _ in rows])):
        write_reviews(folder / f"plain_text/{split}-00000-of-00001.parquet", part)
    files = "".join(f"  - split: {split}\n    path: plain_text/{split}-*\n" for split in ("train", "test", "unsupervised"))
    put(folder, {"README.md": "---\nlanguage:\n- en\npretty_name: IMDB\ndataset_info:\n  config_name: plain_text\n"
                 f"{FEATURES}configs:\n- config_name: plain_text\n  data_files:\n{files}  default: true\n---\n# IMDB\n"})
