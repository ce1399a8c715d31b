# Right solutions that print, warn and log a lot.
import logging
import sys
import warnings


def _chatty(function):
    def louder(*args, **kwargs):
        print("calling", function.__name__, args, file=sys.stderr)
        warnings.warn("a warning", stacklevel=1)
        logging.getLogger("student").error("an error that is none")
        result = function(*args, **kwargs)
        for _ in range(100):
            print("result", result)
        return result
    return louder


find_word = _chatty(find_word)
baselines = _chatty(baselines)
calibration_bins = _chatty(calibration_bins)
confident_mistakes = _chatty(confident_mistakes)
word_influence = _chatty(word_influence)
sense_similarity = _chatty(sense_similarity)
