"""What can be wrong with a sealed file, and which readers refuse it for that.

The readers are released programs, each with limits of its own; what stands here of them was found
by running them or in their source: otdf-python 0.11, web-sdk 0.19, the Go SDK 0.30, java-sdk 0.18,
and the key access server of the OpenTDF platform. A finding that nobody refuses is a note.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

ENVELOCK, GO, WEB, JAVA, PYTHON = "envelock", "go", "web", "java", "python"
PLATFORM = "platform"  # the key access server of the OpenTDF platform
READERS: Final = (ENVELOCK, GO, WEB, JAVA, PYTHON, PLATFORM)
_FILES = (ENVELOCK, GO, WEB, JAVA, PYTHON)  # those that open files
_CHECKING = (ENVELOCK, GO, WEB, JAVA)  # those that verify hashes
_SHOWN = 3  # places of one finding that are named


@dataclass(frozen=True, slots=True)
class Ailment:
    """One thing that can be wrong."""

    what: str
    refused_by: tuple[str, ...] = ()
    repairable: bool = False  # without any key


AILMENTS: Final[dict[str, Ailment]] = {
    "not-a-sealed-file": Ailment("it is no zip with a payload and a manifest", _FILES),
    "zip-directory-lost": Ailment(
        "the zip directory is missing or broken; payload and manifest were found without it",
        _FILES, repairable=True),
    "payload-truncated": Ailment("the file ends before its payload does", _FILES),
    "zip-comment": Ailment("the zip has a comment", (ENVELOCK, GO), repairable=True),
    "zip-trailing": Ailment("bytes follow the zip's end", (ENVELOCK, GO), repairable=True),
    "zip-leading": Ailment("bytes stand before the zip", (ENVELOCK,), repairable=True),
    "zip-shifted": Ailment(
        "bytes were put before the zip, so its offsets are wrong", (ENVELOCK, GO, WEB, JAVA),
        repairable=True),
    "zip-gap": Ailment("bytes stand between its entries", (ENVELOCK,), repairable=True),
    "zip-extra-entry": Ailment(
        "it has an entry that is neither payload nor manifest; repair leaves it out", (ENVELOCK,),
        repairable=True),
    "zip-duplicate-entry": Ailment(
        "an entry stands there twice, and readers differ in which they take", (ENVELOCK,)),
    "zip-missing-entry": Ailment("payload or manifest is missing", _FILES),
    "zip-manifest-name": Ailment(
        "the manifest is named as the specification says; the Go SDK reads that since 0.35",
        (WEB, JAVA, PYTHON), repairable=True),
    "zip-compressed": Ailment(
        "an entry is compressed", (ENVELOCK, GO, WEB, JAVA), repairable=True),
    "zip-encrypted": Ailment("an entry is encrypted by zip", _FILES),
    "zip-compressed-rarely": Ailment("an entry is compressed in a rare way", _CHECKING),
    "zip-directory-far": Ailment(
        "the directory is not within the last 1000 bytes", (WEB,), repairable=True),
    "zip64-in-part": Ailment(
        "an entry is zip64 and the end of the zip is not", (GO,), repairable=True),
    "zip32-large": Ailment(
        "a size or offset from 2 GiB on stands in 32 bits", (JAVA,), repairable=True),
    "zip-descriptor": Ailment(
        "a data descriptor is missing, or differs from the directory", (ENVELOCK,),
        repairable=True),
    "zip-local-header": Ailment(
        "a local header differs from the directory", (ENVELOCK,), repairable=True),
    "zip-extra-field": Ailment(
        "an entry has an extra field of unknown meaning", (ENVELOCK,), repairable=True),
    "zip-order": Ailment("the manifest stands before the payload"),
    "zip-manifest-crc": Ailment(
        "the manifest does not match its checksum: it was changed, or damaged", (ENVELOCK, PYTHON)),
    "zip-payload-crc": Ailment(
        "the payload does not match its checksum: it was changed, or damaged", (PYTHON,)),
    "manifest-too-large": Ailment("the manifest has more than 10 MB", (ENVELOCK, GO, WEB)),
    "manifest-not-json": Ailment("the manifest is not JSON", _FILES),
    "manifest-ambiguous": Ailment(
        "the manifest has more than one reading (a repeated name, a number out of range, depth)",
        (ENVELOCK,)),
    "manifest-shape": Ailment("a member is missing or of another type", _FILES),
    "unknown-member": Ailment("a member that the format does not know", (PYTHON,)),
    "iv-missing": Ailment("the member `iv` is missing", (PYTHON,), repairable=True),
    "mime-type-missing": Ailment("the member `mimeType` is missing", (PYTHON,), repairable=True),
    "sizes-omitted": Ailment(
        "segments leave out sizes that equal the default", (GO, JAVA, PYTHON), repairable=True),
    "defaults-missing": Ailment(
        "a default segment size is missing", (ENVELOCK, GO, JAVA), repairable=True),
    "defaults-differ": Ailment(
        "the default segment sizes do not differ by 28", (ENVELOCK, GO, JAVA), repairable=True),
    "sizes-differ": Ailment("a segment's two sizes do not differ by 28", (ENVELOCK,)),
    "sizes-short": Ailment("the segments have fewer bytes than the payload", (ENVELOCK,)),
    "sizes-long": Ailment("the segments have more bytes than the payload", _FILES),
    "segment-moved": Ailment(
        "segments end in other bytes than the manifest says: moved, changed or damaged", _CHECKING),
    "segment-over-4-mib": Ailment("segments are larger than 4 MiB", (JAVA,)),
    "segment-over-64-mib": Ailment("segments are larger than 64 MiB", (ENVELOCK, JAVA)),
    "segments-too-many": Ailment("there are more than 2^20 segments", (ENVELOCK,)),
    "segments-none": Ailment("there is no segment, which is how some write an empty file"),
    "root-gmac": Ailment(
        "the root signature is GMAC, which anybody can forge; new releases refuse it", (ENVELOCK,)),
    "root-algorithm": Ailment("the root signature has an unknown algorithm", (ENVELOCK, WEB)),
    "root-size": Ailment("the root signature has another length", _CHECKING),
    "hash-algorithm": Ailment("the segment hashes have an unknown algorithm", (ENVELOCK, WEB)),
    "hash-size": Ailment("a segment hash has another length", _CHECKING),
    "encryption-algorithm": Ailment("the encryption is of an unknown type", (ENVELOCK,)),
    "not-encrypted": Ailment("it does not say that the payload is encrypted", (ENVELOCK,)),
    "legacy": Ailment(
        "format 4.2.2 or older, whose hashes are text; opened with --legacy", (ENVELOCK,)),
    "legacy-named": Ailment(
        "hashes are text, but a version is stated; Go and Java expect none then", (GO, JAVA)),
    "schema-version": Ailment("the version of the format is unknown", (ENVELOCK,)),
    "binding-bare": Ailment(
        "a policy binding is a bare text, not an object", repairable=True),
    "binding-without-alg": Ailment(
        "a policy binding names no algorithm", (GO,), repairable=True),
    "binding-raw": Ailment("a policy binding is 32 raw bytes, not hex", (PLATFORM,)),
    "binding-malformed": Ailment(
        "a policy binding is of an unknown form or algorithm", (ENVELOCK, PLATFORM)),
    "key-access-none": Ailment("there is no key access object", _FILES),
    "key-access-twice": Ailment(
        "two key access objects have the same server and split", (WEB,)),
    "key-access-type": Ailment("a key access object is of an unknown type", _FILES),
    "key-access-post-quantum": Ailment("a share is wrapped to a post-quantum key", (WEB, PYTHON)),
    "key-access-kid": Ailment("a key access object names no key", (ENVELOCK,)),
    "key-access-url": Ailment("a key access object names no plain address", (ENVELOCK,)),
    "key-access-wrap": Ailment(
        "a wrapped key is malformed, or its ephemeral key is missing", (*_FILES, PLATFORM)),
    "key-access-wrap-of-several": Ailment(
        "a wrapped key is malformed; others of its split may do"),
    "key-split": Ailment("the key is split", (PYTHON,)),
    "policy-unreadable": Ailment("the policy is not base64 of JSON", (*_FILES[:4], PLATFORM)),
    "policy-strict": Ailment(
        "the policy has more than one reading, or unknown members", (ENVELOCK,)),
    "policy-uuid": Ailment("the policy has no uuid but zeros, so audits cannot tell it apart"),
    "policy-empty": Ailment("the policy asks nothing; many servers deny that, some permit it"),
    "assertion-malformed": Ailment("an assertion is malformed", (ENVELOCK, PYTHON)),
    "assertion-incomplete": Ailment(
        "an assertion or its binding lacks a member, or has one too many", (PYTHON,)),
    "assertion-unbound": Ailment("an assertion has no signature", _CHECKING),
    "assertion-twice": Ailment("two assertions have the same id", (ENVELOCK,)),
    "assertion-key-inside": Ailment(
        "an assertion brings its own key; Go, web and Java would trust it"),
    "assertion-author": Ailment(
        "an assertion is signed with an author's key, which a reader must be told", _CHECKING),
    "assertion-object": Ailment("an assertion's value is a JSON object, as old Java files have it"),
    "assertions-too-many": Ailment("there are more than 256 assertions", (ENVELOCK,)),
    "refused": Ailment("it is refused here", (ENVELOCK,)),
}  # fmt: skip


OF_SIZES: Final = ("sizes-omitted", "defaults-missing", "defaults-differ")
OF_MANIFEST: Final = (*OF_SIZES, "iv-missing", "mime-type-missing", "binding-bare",
                      "binding-without-alg")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with one file."""

    code: str  # of `AILMENTS`
    where: str
    repairable: bool  # without any key, in this file

    @property
    def what(self) -> str:
        """In words."""
        return AILMENTS[self.code].what

    @property
    def refused_by(self) -> tuple[str, ...]:
        """Those of `READERS` that refuse the file for it; none: it is a note."""
        return AILMENTS[self.code].refused_by


@dataclass(slots=True)
class Findings:
    """Findings while they are gathered: one for each ailment, with the places where it was seen."""

    _places: dict[str, list[str]] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=dict)
    _incurable: set[str] = field(default_factory=set)

    def add(self, code: str, where: str, *, incurable: bool = False) -> None:
        """Note an ailment.

        Args:
            code: Of `AILMENTS`.
            where: The place, in words; may be a stranger's text.
            incurable: It could be repaired in other files, but not in this one.
        """
        places = self._places.setdefault(code, [])
        self._counts[code] = self._counts.get(code, 0) + 1
        if len(places) < _SHOWN and where not in places:
            places.append(where[:100])
        if incurable:
            self._incurable.add(code)

    def give_up(self, *codes: str) -> None:
        """Note that ailments of these *codes* cannot be repaired in this file."""
        self._incurable.update(codes)

    def __iter__(self) -> Iterator[Finding]:
        for code in sorted(self._places, key=list(AILMENTS).index):
            count, places = self._counts[code], self._places[code]
            more = f", … ({count} in all)" if count > len(places) else ""
            repairable = AILMENTS[code].repairable and code not in self._incurable
            yield Finding(code, ", ".join(places) + more, repairable)

    def __contains__(self, code: str) -> bool:
        return code in self._places


def refusing(findings: Iterable[Finding]) -> tuple[str, ...]:
    """The readers that refuse a file with these findings, in the order of `READERS`."""
    named = {name for finding in findings for name in finding.refused_by}
    return tuple(name for name in READERS if name in named)
