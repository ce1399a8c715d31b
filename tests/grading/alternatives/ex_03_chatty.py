# Right solutions that print and warn, and change what they are given.
import sys
import warnings


def _chatty(function):
    def louder(*args, **kwargs):
        print("calling", function.__name__, file=sys.stderr)
        warnings.warn("a warning", stacklevel=1)
        result = function(*args, **kwargs)
        for _ in range(200):
            print("result", result)
        for argument in args:
            if hasattr(argument, "fill_"):
                argument.fill_(0)
            elif isinstance(argument, list):
                argument.clear()
        return result
    return louder


pack_blocks = _chatty(pack_blocks)
characteristic_words = _chatty(characteristic_words)
next_token_nll = _chatty(next_token_nll)
perplexity = _chatty(perplexity)
style_share = _chatty(style_share)
training_flops = _chatty(training_flops)
training_memory = _chatty(training_memory)
