"""Fuzzing without a fuzzer: seeded random mutation, for machines where atheris has no wheel, and for the tests.

In: a target and a random source. Out: its seeds, then mutations of them and of inputs made before.
"""

from collections.abc import Iterator
from random import Random

from tests.fuzz.target import Target

KEPT = 64
"""Mutated inputs that are mutated further."""


def inputs(target: Target, random: Random, count: int | None = None) -> Iterator[bytes]:
    """`count` inputs (None: without end): some of the seeds as they are, then mutations."""
    seeds = [seed[: target.limit] for seed in target.seeds()]
    first = list(seeds) if count is None else random.sample(seeds, min(len(seeds), max(count // 4, 1)))
    yield from (*first, b"")
    made = len(first) + 1
    pool: list[bytes] = []
    while count is None or made < count:
        base = random.choice(pool if pool and random.random() < 0.3 else seeds)
        data = target.mutate(base, random, seeds, target.limit)
        if len(pool) < KEPT:
            pool.append(data)
        else:
            pool[random.randrange(KEPT)] = data if random.random() < 0.8 else base
        made += 1
        yield data
