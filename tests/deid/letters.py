"""Values that stand nowhere else, in eight character sets."""

from __future__ import annotations

import random

from pydicom.charset import encode_string, python_encoding

ROOT = "1.3.6.1.4.1.55555"
CHARSETS: dict[str, tuple[list[str], tuple[int, int]]] = {
    "latin": (["ISO_IR 100"], (0xE0, 0xFE)),
    "utf8": (["ISO_IR 192"], (0x100, 0x17F)),
    "gb18030": (["GB18030"], (0x4E00, 0x9000)),
    "japanese": (["", "ISO 2022 IR 87"], (0x30A1, 0x30F3)),
    "korean": (["", "ISO 2022 IR 149"], (0xAC00, 0xAC01)),
    "cyrillic": (["ISO_IR 144"], (0x430, 0x44F)),
    "greek": (["ISO_IR 126"], (0x3B1, 0x3C9)),
    "hebrew": (["ISO_IR 138"], (0x5D0, 0x5EA)),
}
"""Specific Character Set, and the range of letters to draw from."""
_KOREAN = "가각간갈감갑강개객거건걸검격견결경계고곡곤골공과관광교구국군굴궁권귀규균극근금급기길김나남내노녹"


class Writer:
    """Makes values that stand nowhere else."""

    def __init__(self, charset: str, seed: int) -> None:
        self.terms, (self._first, self._last) = CHARSETS[charset]
        self._random = random.Random(f"{charset}{seed}")
        self._encodings = [python_encoding[term] for term in self.terms]
        self._days = list(range(28 * 12 * 35))
        self._random.shuffle(self._days)

    def word(self, size: int = 9) -> str:
        """Letters of the character set that make no word."""
        if self._first == 0xAC00:
            return "".join(self._random.choices(_KOREAN, k=min(size, 5)))
        size = min(size, 5) if self._first > 0x3000 else size
        letters = [chr(c) for c in range(self._first, self._last + 1) if chr(c).isalpha() and c != 0xF7]
        return "".join(self._random.choices(letters, k=size))

    def latin(self, size: int = 9) -> str:
        """Letters of ASCII that make no word."""
        return "".join(self._random.choices("bcdfghjklmnpqrstvwxz", k=size)).title()

    def digits(self, size: int = 9) -> str:
        """A number that begins with no zero."""
        return self._random.choice("123456789") + "".join(self._random.choices("0123456789", k=size - 1))

    def day(self) -> str:
        """A day between 1925 and 1960, each once."""
        number = self._days.pop()
        return f"{1925 + number // 336}{number % 336 // 28 + 1:02d}{number % 28 + 1:02d}"

    def uid(self) -> str:
        """An instance's UID."""
        return f"{ROOT}.{self.digits(12)}.{self.digits(6)}"

    def encoded(self, text: str) -> bytes:
        """As the file will hold it."""
        return text.encode("ascii") if text.isascii() else encode_string(text, self._encodings)

    def value(self, vr: str) -> tuple[object, bytes]:
        """A value of a VR, and the bytes to search for (empty: too short to be searched for)."""
        match vr.split(" or ")[0]:
            case "PN":
                family, given = self.word(), self.latin()
                return f"{family}^{given}", self.encoded(family)
            case "DA":
                day = self.day()
                return day, day.encode()
            case "DT":
                day = self.day()
                return f"{day}1234", day.encode()
            case "TM":
                fraction = self.digits(6)
                return f"171157.{fraction}", f"171157.{fraction}".encode()
            case "UI":
                uid = self.uid()
                return uid, uid.encode()
            case "CS" | "AE":
                word = self.latin(11).upper()
                return word, word.encode()
            case "IS" | "DS":
                number = self.digits(9)
                return number, number.encode()
            case "AS":
                return "071Y", b""
            case "UR":
                word = self.latin(11)
                return f"http://{word}.example/1", word.encode()
            case "OB" | "OW" | "UN":
                token = self.latin(24).encode()
                return token, token
            case "US" | "SS" | "UL" | "SL":
                return 31, b""
            case "FD" | "FL":
                return 3.25, b""
            case _:
                word = self.word()
                return word, self.encoded(word)
