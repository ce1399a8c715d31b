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


keep_top_k = _chatty(keep_top_k)
keep_top_p = _chatty(keep_top_p)
entropy = _chatty(entropy)
few_shot_prompt = _chatty(few_shot_prompt)
label_log_prob = _chatty(label_log_prob)
perplexity = _chatty(perplexity)
distinct_n = _chatty(distinct_n)
