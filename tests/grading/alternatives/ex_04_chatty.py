# Right solutions that print and warn.
import sys
import warnings


def _chatty(function):
    def louder(*args, **kwargs):
        print("calling", function.__name__, file=sys.stderr)
        warnings.warn("a warning", stacklevel=1)
        result = function(*args, **kwargs)
        for _ in range(200):
            print("result", result)
        return result
    return louder


trim_history = _chatty(trim_history)
few_shot = _chatty(few_shot)
with_context = _chatty(with_context)
parse_json = _chatty(parse_json)
majority_vote = _chatty(majority_vote)
rank_sections = _chatty(rank_sections)
