"""A text of several sentences -> where each begins and ends."""

import re

# These end a sentence wherever they stand: ideographic and half-width full stops, danda, Urdu, Ethiopic, Myanmar, Khmer and
# Tibetan ones, full-width question and exclamation marks.
_ALWAYS = "。｡！？।॥۔።፧፨။៕។༎"


# These may also end an abbreviation, a number or a name.
_PERHAPS = ".!?…؟"


_CLOSING = re.escape("\"'”’»›」』）)]】》〉］")


_OPENING = "\"'“‘„‚«‹「『（([【《〈［¿¡"


_END = re.compile(
    rf"[{_ALWAYS}][{_ALWAYS}{_PERHAPS}]*(?:[{_CLOSING}]+(?=\s|$)|(?![{_ALWAYS}{_PERHAPS}{_CLOSING}]))"  # not in 。”他说
    rf"|[{_PERHAPS}]+[{_CLOSING}]*(?=\s)"
    r"|[\r\n\u2028\u2029]+"
)


_WORD_BEFORE = re.compile(r"\S*$")


# Lower case, without the full stop; those that another sentence seldom follows.
_ABBREVIATIONS = (
    " mr mrs ms dr prof st mt ft vs gen rep sen gov lt col sgt capt cmdr rev hon pres messrs "  # English
    "jan feb apr jun jul aug sep sept oct nov dec no nos vol ed eds pp fig approx est dept "
    "nr bzw ca evtl ggf hl hr fr frl inkl max min mio mrd sog str tel usw vgl zzgl geb gest abs dipl ing med phil "  # German
    "sr sra srta dña ud uds art núm pág págs av avda ej fdo lic ntra "  # Spanish
    "mme mlle mm mgr sig dott sigra dhr mevr mw drs mej jhr jl blz "  # French, Italian, Dutch
    "г гг в вв ул пр им акад проф тов тыс млн млрд руб коп стр рис табл см напр род ум др "  # Russian
    "डॉ श्री प्रो कु "  # Hindi
    "د أ م "  # Arabic
)


def split_sentences(text: str) -> list[tuple[int, int]]:
    """Split running text into sentences, with care: where it is not sure that one ends, it goes on.

    Some full stops end a sentence anywhere (Chinese, Japanese, Hindi, Urdu and others), and so does a line end. One of `.!?…`
    does where white space follows and then no small letter, unless the word before is an initial, an abbreviation or a number
    of one or two digits ("am 3. Oktober"). Thai and Lao, which have no full stop, stay whole.

    Returns:
        The characters (start, end) of each sentence in `text`, without white space around it; together they hold all else.
    """
    sentences, start = [], 0
    for end in _END.finditer(text):
        if end.start() >= start and _ends_sentence(text, end):
            sentences.append((start, end.end()))
            start = end.end()
    sentences.append((start, len(text)))
    return [span for span in (_strip(text, *span) for span in sentences) if span[0] < span[1]]


def _ends_sentence(text: str, end: re.Match) -> bool:
    mark = end[0][0]
    if mark not in _PERHAPS:
        return True
    following = text[end.end() : end.end() + 100].lstrip().lstrip(_OPENING)
    if not following or following[0].islower():
        return False
    if mark != "." or end[0].startswith(".."):
        return True
    word = _WORD_BEFORE.search(text, max(0, end.start() - 50), end.start())
    before = word[0].lstrip(_OPENING) if word else ""
    is_number = before.isdigit() and len(before) <= 2
    return not (len(before) == 1 or "." in before or is_number or f" {before.lower()} " in _ABBREVIATIONS)


def _strip(text: str, start: int, end: int) -> tuple[int, int]:
    stripped = text[start:end]
    return start + len(stripped) - len(stripped.lstrip()), start + len(stripped.rstrip())
