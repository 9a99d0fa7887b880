"""Numbers as people and models write them: '1,234', '$18', '18 dollars', '25%', '3/4', '1 1/2', '1\u00bd', '-0.5',
'3 million', '2 dozen', '5k', '$1.5M', '18 m^2', 'x = 18', '**18**', '\\boxed{18}', '\\frac{3}{4}'.

One number and nothing else: a list, a sentence or a second number is none, nor is one that is hedged, taken back or
goes on in words ('7 or eight', '7 is wrong', '7 at least', '7 and a half'). NaN, infinity, True, 1e999 and ten thousand
digits are none either. The grammar is a regular expression on a text that is capped first; nothing is evaluated.
"""

import math
import re
import unicodedata
from dataclasses import dataclass, field

MAX_CHARACTERS = 80
LEAST_DIGITS = 3  # of a rounding: 0.03 is too coarse to stand for 0.031
WORD = re.compile(r"[a-z']+")
SCALES = {
    "dozen": 12.0, "hundred": 1e2, "thousand": 1e3, "lakh": 1e5, "million": 1e6, "mn": 1e6, "crore": 1e7,
    "billion": 1e9, "bn": 1e9, "trillion": 1e12,
}  # fmt: skip
LETTERS = {"k": 1e3, "K": 1e3, "M": 1e6, "B": 1e9}
DOUBTS = re.compile(
    r"\b(?:or|nor|not?|never|but|if|unless|is|isn't|isnt|are|aren't|was|wasn't|maybe|perhaps|possibly|probably|about|"
    r"approximately|roughly|least|most|ish|so|(?:wrong|incorrect|false|mistaken)(?=\W*$))\b"  # '5 wrong answers'
)
NUMERAL = (
    r"(?:zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|(?:thir|four|fif|six|seven|eigh|nine)teen|"
    r"(?:twen|thir|for|fif|six|seven|eigh|nine)ty)"
)
GOES_ON = re.compile(  # but for '7 five-dollar bills', '7 quarters', '7 half dollars', '7 meters squared', '7 times'
    rf"(?!^[a-z]+-[a-z])\b{NUMERAL}\b|\b(?:plus|minus|versus|vs|pi)\b|^\W*(?:squared|cubed)\b|"
    r"\b(?:halves|thirds|fourths|(?:fif|six|seven|eigh|nin|ten|hundred|thousand|million)ths)\b|^(?:half|third)$|"
    rf"(?!^)\b(?:half|quarters?|third)\b|\b(?:and|times|to)\s(?:an?\s)?(?:{'|'.join(SCALES)})s?\b"
)
# 1,234, India's 1,00,000, or 1234; never 1,2,3. Atomic, not possessive: that is wrong before Python 3.11.5
DIGITS = r"(?:[0-9]{1,3}(?>(?:,[0-9]{3})+)|[0-9]{1,2}(?>(?:,[0-9]{2}(?![0-9]))+),[0-9]{3}|[0-9]++)"
CURRENCY = (  # MathQA's readers have cut 's . 180' from 'rs . 180'
    r"(?:(?:US|rs\s?\.?)?\s?\\?[$\u20ac\u00a3\u00a5\u20b9]|US\$|rs\b\s?\.?|s\s?\.|USD|EUR|GBP|INR)"
)
AREA = r"(?:[cmk]?m|yd|(?:ft|in)(?!\s[23]))\s?\^?\s?[23]"  # '5 ft 2' are feet and inches, '1 in 2' are odds
FRACTION = re.compile(r"\s?(?:\\[dt]?frac\{([0-9]++)\}\{([0-9]++)\}|([\u00bc-\u00be\u2150-\u215e]))\s?")
WRAPPED = re.compile(r"\*\*([^*]++)\*\*\.?|\$?\\boxed\{([^{}]++)\}\$?\.?")
NUMBER = re.compile(
    rf"(?:[a-z]\s?=\s?)?(?P<sign>[-+\u2212]?)\s?(?P<currency>{CURRENCY})?\s?(?P<sign2>[-+\u2212]?)"
    rf"(?:(?P<whole>{DIGITS})\s(?:and\s)?(?=[0-9]+\s?/))?"
    rf"(?P<number>{DIGITS}(?:\.[0-9]++)?|\.[0-9]++)(?P<exponent>[eE][-+]?[0-9]{{1,3}})?"
    rf"(?:\s?/\s?(?P<below>{DIGITS}(?:\.[0-9]++)?))?"
    r"\s?(?P<percent>\\?%|percent\b|per cent\b)?"
    rf"\s?(?P<unit>(?:/\s?)?(?:{AREA}|(?:\\?\$|[A-Za-z\u00b0\u20ac\u00a3])[A-Za-z\u00b0\u00b2\u00b3 ./'^()-]*))?\.?",
    re.ASCII | re.IGNORECASE,
)


@dataclass(frozen=True)
class Quantity:
    """A finite number. Of '25%', `value` is 25 and `percent` true: it is met by 25, and by 0.25. `decimals` are those
    that it may be rounded to: None of a whole number, a fraction, '2.5 million' or less than LEAST_DIGITS digits.
    """

    value: float
    percent: bool = False
    decimals: int | None = field(default=None, compare=False)  # 7.00 is 7

    @property
    def readings(self) -> tuple["Quantity", ...]:
        if not self.percent:
            return (self,)
        decimals = None if self.decimals is None else self.decimals + 2
        return (Quantity(self.value, decimals=self.decimals), Quantity(self.value / 100, decimals=decimals))


def parse_number(text: str) -> Quantity | None:
    """The number that a text is, its currency and unit aside; None where it is none. Units are not compared."""
    if len(text.strip()) > MAX_CHARACTERS:
        return None
    text = FRACTION.sub(_in_line, text).strip()
    while inner := WRAPPED.fullmatch(text):
        text = inner[inner.lastindex].strip()
    found = NUMBER.fullmatch(text)
    if not found or (found["sign"] and found["sign2"]):
        return None
    value = float(found["number"].replace(",", "") + (found["exponent"] or ""))
    if found["below"] is not None:
        below = float(found["below"].replace(",", ""))
        if below == 0:
            return None
        value /= below
    if found["whole"] is not None:
        value += float(found["whole"].replace(",", ""))
    attached = text[: found.start("unit")][-1:].isdecimal()
    scale = _scale(found["unit"] or "", attached, found["currency"] is not None)
    if scale is None or not math.isfinite(value * scale):
        return None
    value *= scale
    negative = (found["sign"] or found["sign2"]) in ("-", "\u2212")
    as_written = scale == 1 and not (found["below"] or found["exponent"])
    decimals = _decimals(found["number"]) if as_written else None
    return Quantity(-value if negative else value, found["percent"] is not None, decimals)


def _in_line(fraction: re.Match) -> str:
    """' 1/2 ', so that a digit beside it stays a number of its own."""
    top, bottom, sign = fraction.groups()
    if sign:
        top, bottom = unicodedata.normalize("NFKC", sign).split("\u2044")
    return f" {top}/{bottom} "


def _decimals(number: str) -> int | None:
    digits, decimals = re.sub("[.,]", "", number), len(number.partition(".")[2])
    return decimals if decimals and len(digits.lstrip("0")) >= LEAST_DIGITS else None


def _scale(unit: str, attached: bool, priced: bool) -> float | None:
    """What a number is to be multiplied with for the words after it; None where they doubt it, or go on with it, as in
    'three hundred and five'. A letter counts where it is `attached`, and beyond k of a price alone: '300 K' is a
    temperature, '5m' a length, and nobody knows of '5K', '5M' or '$5 m'.
    """
    words, letter = WORD.findall(unit.lower()), re.match(r"[kKmMbB]\b", unit)
    if DOUBTS.search(unit.lower()) or GOES_ON.search(unit.lower()):
        return None
    if letter and attached and (priced or letter[0] == "k"):
        return LETTERS.get(letter[0])
    if letter and (priced or (attached and letter[0] in "KMB")):
        return None
    scale = 1.0
    while words and unit[0] != "/" and (step := SCALES.get(words[0].removesuffix("s"))):
        scale, words = scale * step, words[1:]
    return None if scale > 1 and words[:1] == ["and"] else scale


def plain(value: float) -> str:
    """The shortest text of a number: '7' for 7.0."""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)
