"""Who is who: what an index says of patients that may be several people, or one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medcl.archive import identity
from medcl.plugin import NO_PATIENT, Record


def records(*patients: str, key: str = "{patient}/{n}.x") -> list[Record]:
    return [
        Record(key.format(patient=patient, n=n), (f"{n}.x",), patient)
        for n, patient in enumerate(patients)
    ]


@given(st.from_regex(r"[A-Z]{0,3}[1-9][0-9]{0,4}", fullmatch=True), st.integers(0, 3))
def test_spellings_of_one_id_are_told(patient: str, zeros: int) -> None:
    digits = patient.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    letters = patient.removesuffix(digits)
    other = f" {letters.lower()}{'0' * zeros}{digits} "
    found = records(patient, other, "Z-99999999")
    notes = identity.notice(found)
    assert [identity.SPELLINGS in r.findings for r in found] == [True, True, False]
    assert len({r.patient for r in found}) == 3, "never merged without an option"
    assert "2 patients may be 1" in notes[0]
    assert "--merge-spellings" in notes[0]
    identity.merge(found)
    assert len({r.patient for r in found}) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("P-001", "p_1"),
        ("P001.", "P001"),
        ("P 001", "P\u00a01"),
        ("P1^", "P1"),
        ("\uff11\uff12", "12"),  # digits of full width
        ("M\u00fcller1", "Mu\u0308ller1"),  # an accent of its own
        ("P\u200b1", "P1"),  # a space of no width
        ("P1\x00", "P1"),
        ("1.2", "1-2"),
    ],
)
def test_punctuation_and_forms_of_letters_are_spelling(one: str, other: str) -> None:
    assert identity.normal(one) == identity.normal(other)


@pytest.mark.parametrize(("one", "other"), [("1-12", "11-2"), ("1 2", "12"), ("P01", "P10")])
def test_numbers_are_never_joined(one: str, other: str) -> None:
    assert identity.normal(one) != identity.normal(other)


@given(st.lists(st.from_regex(r"[a-z]{1,4}[-][1-9][0-9]{0,3}", fullmatch=True), unique=True))
def test_ids_that_differ_in_more_are_left_alone(patients: list[str]) -> None:
    found = records(*patients)
    notes = identity.notice(found)
    assert all(not r.findings for r in found)
    assert not [note for note in notes if "may be" in note]


@pytest.mark.parametrize("word", ["ct", "IMAGE", "Anonymous", "unknown"])
def test_a_word_that_names_nobody_is_told_with_the_option(word: str) -> None:
    many = records(word, word, word, "P1", key="{n}/x.nii")
    notes = " ".join(identity.notice(many))
    assert "3 items have a patient whose id is a word" in notes
    assert "--patient-from '^(?P<patient>[^/]+)/'" in notes


def test_one_patient_for_all_is_told() -> None:
    assert "All 4 items are of one patient" in identity.notice(records(*["P1"] * 4))[0]
    assert identity.notice(records("P1")) == []


def test_advice_names_the_folder_that_tells_items_apart() -> None:
    some = [
        replace(r, findings=(NO_PATIENT,))
        for r in records("a", "b", key="export/site/{patient}/{n}.nii")
    ]
    note = identity.notice(some)[-1]
    assert note.endswith("--patient-from '^[^/]+/[^/]+/(?P<patient>[^/]+)/'")
    assert "2 of 2 items name no patient" in note
    flat = [replace(r, key=r.key.split("/")[-1]) for r in some]
    assert identity.notice(flat)[-1].endswith("--table patients.csv, with columns key and patient")


def test_no_note_holds_an_id() -> None:
    secret = records("Mueller007", "mueller7", "MUELLER07", key="{patient}/x")
    assert not [n for n in identity.notice(secret) if "ueller" in n]
