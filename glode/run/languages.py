"""Codes of languages: two letters where there are two (ISO 639-1), else three, as the Hub and the recipes have them."""

import re

# Code -> how people write the language otherwise: codes of three letters (ISO 639-2 and 639-3), names. Not all there are.
OTHERWISE = {
    "ar": "ara arabic",
    "bg": "bul bulgarian",
    "bn": "ben bengali",
    "cs": "ces cze cz czech",
    "da": "dan danish",
    "de": "deu ger german deutsch",
    "el": "ell gre gr greek",
    "en": "eng english",
    "es": "spa spanish español espanol castilian",
    "et": "est estonian",
    "eu": "eus baq basque",
    "fa": "fas per persian farsi",
    "fi": "fin finnish",
    "fr": "fra fre french français francais",
    "he": "heb iw hebrew",
    "hi": "hin hindi",
    "hr": "hrv croatian",
    "hu": "hun hungarian",
    "id": "ind indonesian",
    "it": "ita italian italiano",
    "ja": "jpn jp japanese",
    "ko": "kor kr korean",
    "lt": "lit lithuanian",
    "lv": "lav latvian",
    "nl": "nld dut dutch nederlands flemish",
    "no": "nor norwegian",
    "pl": "pol polish polski",
    "pt": "por portuguese português portugues",
    "ro": "ron rum romanian",
    "ru": "rus russian",
    "sk": "slk slo slovak",
    "sl": "slv slovenian slovene",
    "sr": "srp serbian",
    "sv": "swe swedish",
    "sw": "swa swahili",
    "th": "tha thai",
    "tr": "tur turkish",
    "uk": "ukr ukrainian",
    "ur": "urd urdu",
    "vi": "vie vietnamese",
    "zh": "zho chi cn chinese mandarin",
}
CODE_OF = {other: code for code, others in OTHERWISE.items() for other in others.split()}


def language_note(name: str) -> str | None:
    """What to say of a language that is not named by its code, None where nothing is to be said. Parts after the first, as in
    pt-BR, are the user's own; so is a code of three letters that the table has not."""
    first = re.split(r"[-_]", name.strip())[0].casefold()
    if code := CODE_OF.get(first):
        return f"{name}: no two-letter code; did you mean {code}?"
    if not re.fullmatch(r"[a-z]{2,3}", first):
        return f"{name}: no language code, such as de or zh (ISO 639); rules for single languages do not see it"
    return None
