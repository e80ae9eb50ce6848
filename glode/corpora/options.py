"""How corpora are read, where their files do not say it themselves."""

from dataclasses import dataclass

from glode.errors import InputError

SCHEMES = ("IOB1", "IOB2", "BIOES", "BILOU", "IO")


@dataclass(frozen=True)
class ReadingOptions:
    """What the options of the command line say of all corpora.

    Attributes:
        encoding: of text files that are not UTF-8, see `glode.corpora.files.find_encoding`.
        encoding_errors: "strict" or "replace", see `glode.corpora.files.read_lines`.
        token_column: the words' column: a number from 1, from the end if negative, or its name. None: as the file shows.
        tag_column: the same for the tags; in CoNLL-U also a key of the last column, such as NER.
        scheme: one of `SCHEMES`, None: as the tags show.
        text_field: the key of the text in JSON records. None: "text", or what is plainly the text.
    Raises:
        InputError: there is no such scheme, or no such column can be.
    """

    encoding: str = "utf-8"
    encoding_errors: str = "strict"
    token_column: str | None = None
    tag_column: str | None = None
    scheme: str | None = None
    text_field: str | None = None

    def __post_init__(self):
        if self.scheme is not None and self.scheme not in SCHEMES:
            raise InputError(f"--scheme {self.scheme}: not one of the label schemes {', '.join(SCHEMES)}.")
        for name in ("token_column", "tag_column"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, str(value).strip())  # a number, in a YAML file
                if str(value).strip() in ("", "0"):
                    raise InputError(f"--{name} {value}: columns count from 1, from the end -1, or have a header's name.")
