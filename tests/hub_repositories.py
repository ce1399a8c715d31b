"""The course's own repositories of the Hub, for `fake_hub.serve`.

Weights and texts are small and made up. Names of files, keys of weights, configurations and cards
are as documented for the pinned commits.
"""

from __future__ import annotations

import json
from pathlib import Path

from utils import tiny

BERT = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 128, "max_position_embeddings": 512}
BERT_CONFIG = {
    "attention_probs_dropout_prob": 0.1, "gradient_checkpointing": False, "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1, "initializer_range": 0.02, "layer_norm_eps": 1e-12,
    "model_type": "bert", "pad_token_id": 0, "position_embedding_type": "absolute",
    "transformers_version": "4.6.0.dev0", "type_vocab_size": 2, "use_cache": True}


def write_all(root: Path) -> dict[str, Path]:
    """Write all of them below `root`; returns what `fake_hub.serve` takes."""
    makers = {
        "models/google-bert/bert-base-uncased": bert,
        "models/openai-community/gpt2": gpt2,
        "models/HuggingFaceTB/SmolLM2-135M-Instruct": smollm2,
        "models/sentence-transformers/all-MiniLM-L6-v2": minilm,
        "datasets/cornell-movie-review-data/rotten_tomatoes": rotten_tomatoes,
        "datasets/stanfordnlp/imdb": imdb,
    }
    for name, make in makers.items():
        (root / name).mkdir(parents=True)
        make(root / name)
    return {name: root / name for name in makers}


def put(folder: Path, files: dict[str, dict | list | str]) -> None:
    """Write small files; a dict or list becomes JSON."""
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else json.dumps(content, indent=2)
        file.write_text(text, encoding="utf-8")


def unwanted(folder: Path, *names: str) -> None:
    """Files of the real repository that nothing of the course may fetch."""
    put(folder, dict.fromkeys((".gitattributes", "README.md", *names), "not to be fetched"))


def write_weights(folder: Path, weights: dict) -> None:
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous().clone() for name, tensor in weights.items()},
              folder / "model.safetensors", metadata={"format": "pt"})


def vocabulary(folder: Path) -> dict[str, int]:
    """The pieces of the tokenizer in a folder, in the order of their numbers."""
    vocab = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    return dict(sorted(vocab.items(), key=lambda piece: piece[1]))


def bert(folder: Path) -> None:
    """BertForPreTraining's weights with LayerNorm's old names; its configuration says MaskedLM."""
    from transformers import BertConfig, BertForPreTraining

    tiny.save("encoder", folder)
    vocab = vocabulary(folder)
    size = BERT | {"vocab_size": len(vocab)}
    weights = BertForPreTraining(BertConfig(**size)).state_dict()
    for name in list(weights):
        if "position_ids" in name or "predictions.decoder" in name:
            del weights[name]  # a buffer, and what is tied
        elif "LayerNorm" in name:
            old = name.replace("weight", "gamma").replace("bias", "beta")
            weights[old] = weights.pop(name)
    write_weights(folder, weights)
    put(folder, {"config.json": {"architectures": ["BertForMaskedLM"], **BERT_CONFIG, **size},
                 "tokenizer_config.json": {"do_lower_case": True, "model_max_length": 512},
                 "vocab.txt": "".join(f"{piece}\n" for piece in vocab)})
    unwanted(folder, "pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "rust_model.ot",
             "model.onnx", "LICENSE", "coreml/fill-mask/float32_model.mlpackage/Manifest.json")


def gpt2(folder: Path) -> None:
    """GPT2Model's weights without a prefix, with its old buffers; no padding token."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    tiny.save("decoder", folder)
    vocab = vocabulary(folder)
    end = vocab["<|endoftext|>"]
    size = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 1024, "vocab_size": len(vocab),
            "bos_token_id": end, "eos_token_id": end}
    weights = GPT2LMHeadModel(GPT2Config(**size)).state_dict()
    weights = {name.removeprefix("transformer."): tensor for name, tensor in weights.items()
               if "lm_head" not in name}
    mask = torch.tril(torch.ones(1024, 1024)).view(1, 1, 1024, 1024)
    write_weights(folder, weights | {f"h.{layer}.attn.bias": mask for layer in range(2)})
    put(folder, {
        "config.json": {
            "activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"],
            "attn_pdrop": 0.1, "embd_pdrop": 0.1, "initializer_range": 0.02,
            "layer_norm_epsilon": 1e-05, "model_type": "gpt2", "n_ctx": 1024, "resid_pdrop": 0.1,
            "summary_first_dropout": 0.1, "summary_proj_to_labels": True,
            "summary_type": "cls_index", "summary_use_proj": True, **size,
            "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}}},
        "generation_config.json": {"_from_model_config": True, "bos_token_id": end,
                                   "eos_token_id": end, "transformers_version": "4.26.0.dev0"},
        "tokenizer_config.json": {"model_max_length": 1024},
        "vocab.json": vocab,
        "merges.txt": "#version: 0.2\n"})
    unwanted(folder, "64.tflite", "64-8bits.tflite", "64-fp16.tflite", "pytorch_model.bin",
             "tf_model.h5", "flax_model.msgpack", "rust_model.ot", "onnx/config.json",
             "onnx/decoder_model.onnx", "onnx/tokenizer.json")


CHAT_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a small model.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")


def smollm2(folder: Path) -> None:
    """A Llama in bfloat16 with tied embeddings; its chat template is in tokenizer_config.json."""
    import torch
    from tokenizers import pre_tokenizers
    from transformers import GPT2Tokenizer, LlamaConfig, LlamaForCausalLM

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    pieces = special + sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = GPT2Tokenizer(vocab=vocab, merges=[], unk_token=special[0])
    tokenizer.add_special_tokens({"additional_special_tokens": special[1:]})
    tokenizer.save_pretrained(folder)
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    size = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "intermediate_size": 128, "max_position_embeddings": 8192,
            "vocab_size": len(vocab), "tie_word_embeddings": True, **ids}
    weights = LlamaForCausalLM(LlamaConfig(**size)).to(torch.bfloat16).state_dict()
    weights.pop("lm_head.weight", None)
    write_weights(folder, weights)
    marks = {"additional_special_tokens": special[1:], "bos_token": special[1],
             "eos_token": special[2], "pad_token": special[2], "unk_token": special[0]}
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
             "special": True}
    put(folder, {
        "config.json": {
            "architectures": ["LlamaForCausalLM"], "attention_bias": False,
            "attention_dropout": 0.0, "hidden_act": "silu", "is_llama_config": True,
            "initializer_range": 0.041666666666666664, "mlp_bias": False, "model_type": "llama",
            "pretraining_tp": 1, "rms_norm_eps": 1e-05,
            "rope_interleaved": False, "rope_scaling": None, "rope_theta": 100000,
            "torch_dtype": "bfloat16", "transformers_version": "4.42.3", "use_cache": True, **size,
            "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16", "fp16": "float16"}}},
        "generation_config.json": {"_from_model_config": True, **ids,
                                   "transformers_version": "4.42.3"},
        "special_tokens_map.json": marks,
        "tokenizer_config.json": {
            "add_prefix_space": False, "chat_template": CHAT_TEMPLATE, **marks,
            "added_tokens_decoder": {str(number): {"content": token, **plain}
                                     for number, token in enumerate(special)},
            "clean_up_tokenization_spaces": False, "model_max_length": 8192,
            "tokenizer_class": "GPT2Tokenizer", "vocab_size": len(vocab)},
        "vocab.json": vocab,
        "merges.txt": "#version: 0.2\n"})
    unwanted(folder, "onnx/model.onnx", "onnx/model_q4f16.onnx", "runs/Aug18_11-44-40/events.out",
             "training_args.bin")


def minilm(folder: Path) -> None:
    """BertModel's weights without a prefix, one buffer, and sentence-transformers' files."""
    import torch
    from transformers import BertConfig, BertModel

    tiny.save("encoder", folder)
    vocab = vocabulary(folder)
    size = BERT | {"vocab_size": len(vocab)}
    weights = BertModel(BertConfig(**size)).state_dict()
    write_weights(folder, weights | {"embeddings.position_ids": torch.arange(512)[None]})
    marks = {"cls_token": "[CLS]", "mask_token": "[MASK]", "pad_token": "[PAD]",
             "sep_token": "[SEP]", "unk_token": "[UNK]"}
    put(folder, {
        "config.json": {"_name_or_path": "nreimers/MiniLM-L6-H384-uncased",
                        "architectures": ["BertModel"], **BERT_CONFIG, **size},
        "tokenizer_config.json": {
            "do_lower_case": True, "model_max_length": 512, "never_split": None,
            "name_or_path": "nreimers/MiniLM-L6-H384-uncased", "strip_accents": None,
            "tokenize_chinese_chars": True, "tokenizer_class": "BertTokenizer", **marks},
        "special_tokens_map.json": marks,
        "vocab.txt": "".join(f"{piece}\n" for piece in vocab),
        "modules.json": [{"idx": 0, "name": "0", "path": "",
                          "type": "sentence_transformers.models.Transformer"}],
        "sentence_bert_config.json": {"max_seq_length": 256, "do_lower_case": False},
        "data_config.json": []})
    unwanted(folder, "1_Pooling/config.json", "onnx/model.onnx", "openvino/openvino_model.bin",
             "pytorch_model.bin", "rust_model.ot", "tf_model.h5", "train_script.py")


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
ROTTEN_TOMATOES_CARD = f"""---
language:
- en
pretty_name: RottenTomatoes
dataset_info:
{FEATURES}  splits:
%s  download_size: 487770
  dataset_size: 1347492
train-eval-index:
- config: default
  task: text-classification
  task_id: binary_classification
  splits:
    train_split: train
    eval_split: test
  col_mapping:
    text: text
    label: target
---
# Movie reviews
"""
IMDB_CARD = f"""---
language:
- en
pretty_name: IMDB
dataset_info:
  config_name: plain_text
{FEATURES}  splits:
%s  download_size: 83446840
  dataset_size: 133190302
configs:
- config_name: plain_text
  data_files:
  - split: train
    path: plain_text/train-*
  - split: test
    path: plain_text/test-*
  - split: unsupervised
    path: plain_text/unsupervised-*
  default: true
---
# IMDB
"""


def write_reviews(folder: Path, card: str, file: str, splits: dict[str, list]) -> None:
    """Write rows of (text, label) as `file` says, and the card with their numbers."""
    import pyarrow
    from pyarrow import parquet

    counts = ""
    for split, rows in splits.items():
        path = folder / file.format(split)
        path.parent.mkdir(parents=True, exist_ok=True)
        texts, labels = zip(*rows, strict=True)
        parquet.write_table(pyarrow.table({"text": texts, "label": labels}), path)
        counts += (f"  - name: {split}\n    num_bytes: {sum(map(len, texts))}\n"
                   f"    num_examples: {len(rows)}\n")
    put(folder, {"README.md": card % counts})


def rotten_tomatoes(folder: Path) -> None:
    """Three files at the top; the card describes the columns and names no files."""
    rows = list(zip(*tiny.reviews(1), strict=True))
    write_reviews(folder, ROTTEN_TOMATOES_CARD, "{}.parquet",
                  {"train": rows[:600], "validation": rows[600:720], "test": rows[720:]})


def imdb(folder: Path) -> None:
    """A third split, without labels, which the card's list of files names as well."""
    rows = list(zip(*tiny.reviews(2), strict=True))
    write_reviews(folder, IMDB_CARD, "plain_text/{}-00000-of-00001.parquet",
                  {"train": rows[:420], "test": rows[420:],
                   "unsupervised": [(f"{text} Or so.", -1) for text, _ in rows]})
