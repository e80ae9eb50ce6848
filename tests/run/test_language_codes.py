"""Protects from a language's name in the place of its code, by which scripts without spaces and card examples are found."""

import pytest
from support.command import Command

import run_crossner
from glode.run.languages import language_note


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ger", "ger: no two-letter code; did you mean de?"),
        ("Chinese", "Chinese: no two-letter code; did you mean zh?"),
        ("klingon", "klingon: no language code, such as de or zh (ISO 639)"),
        *((code, None) for code in ("de", "no", "pt-BR", "zh_Hant", "yue", "swh")),
    ],
)
def test_a_name_that_is_no_code(name: str, said: str | None):
    note = language_note(name)
    assert note is None if said is None else note.startswith(said)


@pytest.mark.usefixtures("datasets_cache")
def test_the_run_goes_on(command: Command, capsys):
    with pytest.raises(AssertionError, match="as far as training"):
        run_crossner.main(command.arguments(target_lang="german"))
    assert "german: no two-letter code; did you mean de?" in capsys.readouterr().out
