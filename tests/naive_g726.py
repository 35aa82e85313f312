"""G.726 written a second time, block by block and in plain Python, for the kernel to agree with.

It keeps numbers as (sign, value) and floats as tuples, adapts with the recommendation's own differences (512 - AP, say)
and divides where the kernel shifts, so that it shares no expression with the kernel.
"""

from dataclasses import dataclass, field

LEVELS = {
    2: [116, 365],
    3: [-2048, 135, 273, 373],
    4: [-2048, 4, 135, 213, 273, 323, 373, 425],
    5: [-2048, -66, 28, 104, 169, 224, 274, 318, 358, 395, 429, 459, 488, 514, 539, 566],
}
SCALES = {
    2: [-704, 14048],
    3: [-128, 960, 4384, 18624],
    4: [-384, 576, 1312, 2048, 3584, 6336, 11360, 35904],
    5: [448, 448, 768, 1248, 1280, 1312, 1856, 3200, 4512, 5728, 7008, 8960, 11456, 14080, 16928, 22272],
}
SPEEDS = {2: "07", 3: "0127", 4: "00011137", 5: "0000011111234566"}


def to_float(value: int) -> tuple[int, int]:
    exponent = abs(value).bit_length()
    return exponent, (abs(value) * 64 // 2**exponent if value else 32)


@dataclass
class Naive:
    bits: int
    poles: list[int] = field(default_factory=lambda: [0, 0])
    zeros: list[int] = field(default_factory=lambda: [0] * 6)
    differences: list[tuple[bool, int]] = field(default_factory=lambda: [(False, 0)] * 6)
    samples: list[int] = field(default_factory=lambda: [0, 0])
    signs: list[int] = field(default_factory=lambda: [1, 1])
    fast: int = 544
    slow: int = 34816
    short: int = 0
    long: int = 0
    speed: int = 0
    tone: bool = False

    def decode(self, code: int) -> int:
        negative = code >= 1 << self.bits - 1
        magnitude = (1 << self.bits) - 1 - code if negative else code
        from_zeros = sum(product(b, *d) for b, d in zip(self.zeros, self.differences, strict=True))
        from_poles = sum(product(a, s < 0, abs(s)) for a, s in zip(self.poles, self.samples, strict=True))
        estimate = (from_zeros + from_poles) // 2
        scale = self.scale()
        size = self.size(LEVELS[self.bits][magnitude] + scale // 4)
        transition = self.tone and size > self.threshold()
        difference = -size if negative else size
        sample = estimate + difference
        self.adapt_coefficients(difference, negative, from_zeros // 2, transition)
        self.differences = [(negative, size), *self.differences[:5]]
        self.samples = [sample, self.samples[0]]
        self.tone = self.poles[1] < -11776
        self.adapt_scale(scale, magnitude, transition)
        return max(-32768, min(32767, 4 * sample))

    def scale(self) -> int:
        share = min(self.speed // 4, 64)
        return (self.slow + (self.fast - self.slow // 64) * share) // 64

    @staticmethod
    def size(logarithm: int) -> int:
        if logarithm < 0:
            return 0
        return int((1 + logarithm % 128 / 128) * 2 ** (logarithm // 128 % 16))

    def threshold(self) -> int:
        whole, fraction = self.slow // 32768, self.slow // 1024 % 32
        edge = 31 * 1024 if whole > 9 else (32 + fraction) * 2**whole
        return edge * 3 // 4

    def adapt_coefficients(self, difference: int, negative: bool, estimate: int, transition: bool) -> None:
        total = estimate + difference
        sign = (total > 0) - (total < 0)
        if transition:
            self.poles, self.zeros = [0, 0], [0] * 6
        else:
            turn = max(-256, min(255, -self.poles[0] * sign * self.signs[0] // 32))
            second = self.poles[1] - self.poles[1] // 128 + 128 * sign * self.signs[1] + turn
            second = max(-12288, min(12288, second))
            first = self.poles[0] - self.poles[0] // 256 + 192 * sign * self.signs[0]
            self.poles = [max(second - 15360, min(15360 - second, first)), second]
            leak = 512 if self.bits == 5 else 256
            self.zeros = [
                b - b // leak + (0 if not difference else 128 if was == negative else -128)
                for b, (was, _) in zip(self.zeros, self.differences, strict=True)
            ]
        self.signs = [-1 if total < 0 else 1, self.signs[0]]

    def adapt_scale(self, scale: int, magnitude: int, transition: bool) -> None:
        f = int(SPEEDS[self.bits][magnitude])
        self.short += (f * 512 - self.short) // 32
        self.long += (f * 2048 - self.long) // 128
        unsteady = scale < 1536 or self.tone or abs(4 * self.short - self.long) >= self.long // 8
        self.speed = 256 if transition else self.speed + ((512 if unsteady else 0) - self.speed) // 16
        self.fast = max(544, min(5120, scale + (SCALES[self.bits][magnitude] - scale) // 32))
        self.slow += self.fast + -self.slow // 64


def product(coefficient: int, negative: bool, magnitude: int) -> int:
    e1, m1 = to_float(coefficient >> 2)
    e2, m2 = to_float(magnitude)
    size = int((m1 * m2 + 48) // 16 * 2.0 ** (e1 + e2 - 19))
    return -size if (coefficient < 0) != negative else size
