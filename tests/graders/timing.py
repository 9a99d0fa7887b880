"""CPU seconds of a parser or grader: the bound holds on a busy machine, since the best of three counts."""

import time

SECONDS = 0.05  # of CPU, for any text


def timed(function, *arguments):
    """What the function returns, within SECONDS: a pause of the garbage collector falls on one of three runs only."""
    spent = []
    while not spent or (min(spent) > SECONDS and len(spent) < 3):
        start = time.process_time()
        result = function(*arguments)
        spent.append(time.process_time() - start)
    assert min(spent) < SECONDS, function
    return result
