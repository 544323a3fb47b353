"""XML of GE CardioSoft, written by its published form: counts, units, order, persons, damage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medcl.plugin import Record, Reject
from medcl_biosignals.readers import cardiosoft
from medcl_biosignals.readers.choose import reader
from medcl_biosignals.readers.contract import BadSignal, Heading, Settings

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
PATIENT = """<PatientInfo><PID>{pid}</PID><Name><FamilyName>Roe</FamilyName>
<GivenName>Ann</GivenName></Name><Age units="years">61</Age><Gender>FEMALE</Gender></PatientInfo>"""


def strip(
    counts: np.ndarray, *, fs: float = 500, gain: str = "5", unit: str = "uVperLsb", sep: str = ","
) -> str:
    rows = "".join(
        f'<WaveformData lead="{name}">{sep.join(map(str, row))}</WaveformData>'
        for name, row in zip(LEADS, counts.tolist(), strict=False)
    )
    return (
        f"<StripData><NumberOfLeads>{len(counts)}</NumberOfLeads><SampleRate units='Hz'>{fs}"
        f"</SampleRate><ChannelSampleCountTotal>{counts.shape[1]}</ChannelSampleCountTotal>"
        f"<Resolution units='{unit}'>{gain}</Resolution>{rows}</StripData>"
    )


def disclosure(counts: np.ndarray, order: str = "I,II,V2", ends: str = ",") -> str:
    data = ",".join(map(str, counts.T.reshape(-1).tolist())) + ends
    return (
        f"<FullDisclosure><NumberOfChannels>{len(counts)}</NumberOfChannels><SampleRate>100"
        f"</SampleRate><LeadOrder>{order}</LeadOrder><Resolution units='uVperLsb'>5</Resolution>"
        f"<FullDisclosureData>{data}</FullDisclosureData></FullDisclosure>"
    )


BEAT = "<RestingECGMeasurements><MedianSamples><SampleRate>500</SampleRate></MedianSamples>"
BEAT += "</RestingECGMeasurements>"


def written(folder: Path, *inside: str, pid: str = "A17", encoding: str = "ISO-8859-1") -> Path:
    path = folder / "a.xml"
    body = "".join((PATIENT.format(pid=pid), *inside))
    text = f'<?xml version="1.0" encoding="{encoding}"?>\n<CardiologyXML>{body}</CardiologyXML>'
    path.write_bytes(text.encode(encoding))
    return path


def found(path: Path) -> list[Heading]:
    made = list(reader(path).headings(path, Settings()))
    assert all(isinstance(heading, Heading) for heading in made)
    return made  # type: ignore[return-value]


@settings(max_examples=30, deadline=None)
@given(
    fs=st.sampled_from([100, 240, 500, 1000]),
    gain=st.sampled_from(["5", "4.88", "0.5", "1"]),
    unit=st.sampled_from([("uVperLsb", "uV"), ("nVperLsb", "nV"), ("mVperLsb", "mV")]),
    leads=st.integers(1, 12),
    sep=st.sampled_from([",", ", ", ",\n\t\t", " , "]),
    seed=st.integers(0, 99),
)
def test_strips_of_any_rate_unit_and_form(
    tmp_path_factory: pytest.TempPathFactory,
    fs: int,
    gain: str,
    unit: tuple[str, str],
    leads: int,
    sep: str,
    seed: int,
) -> None:
    counts = np.random.default_rng(seed).integers(-32768, 32767, (leads, 2 * fs))
    path = written(
        tmp_path_factory.mktemp("c"), strip(counts, fs=fs, gain=gain, unit=unit[0], sep=sep), BEAT
    )
    (heading,) = found(path)
    assert (heading.part, heading.format, heading.fs, heading.seconds) == ("", "CardioSoft", fs, 2)
    assert [(c.name, c.units) for c in heading.channels] == [(n, unit[1]) for n in LEADS[:leads]]
    assert (heading.subject, heading.labels) == ("A17", {"age": 61, "sex": "F"})
    assert heading.findings == ("averaged-beat-left-out",)
    samples = np.stack(cardiosoft.read(path, "", Settings()).samples)
    np.testing.assert_allclose(samples, counts * float(gain), rtol=1e-6)
    part = np.stack(cardiosoft.read(path, "", Settings(), (0.5, 1.0)).samples)
    assert np.array_equal(part, samples[:, fs // 2 : fs])


def test_leads_take_turns_in_a_full_disclosure(tmp_path: Path) -> None:
    counts = np.arange(900).reshape(3, 300) - 400
    path = written(tmp_path, strip(counts[:2]), disclosure(counts))
    strips, whole = found(path)
    assert (strips.part, whole.part, whole.fs, whole.seconds) == (
        "strip",
        "full-disclosure",
        100,
        3,
    )
    samples = np.stack(cardiosoft.read(path, "full-disclosure", Settings()).samples)
    assert np.array_equal(samples, counts * 5.0)
    (alone,) = found(written(tmp_path, disclosure(counts, ends="")))
    assert [c.name for c in alone.channels] == ["I", "II", "V2"]


@pytest.mark.parametrize(
    ("inside", "code"),
    [
        ("", "no-signals"),
        (strip(np.zeros((2, 10), int)).replace("0,0", "0,x"), "bad-signal"),
        (strip(np.zeros((2, 10), int)).replace("Total>10", "Total>11"), "truncated"),
        (strip(np.zeros((2, 10), int), fs=0), "bad-sampling-rate"),
        (strip(np.zeros((2, 10), int), gain="0"), "bad-header"),
        (strip(np.zeros((2, 10), int), gain="1e999"), "bad-header"),
        (disclosure(np.zeros((3, 10), int)).replace("0,0,0,", "0,0,", 1), "truncated"),
        (disclosure(np.zeros((3, 10), int), order=""), "bad-header"),
        (strip(np.zeros((2, 0), int)), "no-samples"),
    ],
)
def test_damage_is_one_reject(tmp_path: Path, inside: str, code: str) -> None:
    path = written(tmp_path, inside)
    with pytest.raises(BadSignal) as error:  # noqa: PT012
        for flaw in reader(path).headings(path, Settings()):
            if not isinstance(flaw, Heading):
                raise BadSignal(flaw.code, flaw.reason)
    assert error.value.code == code
    assert "Roe" not in str(error.value)


def test_entities_are_refused_and_other_findings_said(tmp_path: Path) -> None:
    path = written(tmp_path, strip(np.zeros((2, 10), int)))
    path.write_bytes(
        path.read_bytes().replace(
            b"<CardiologyXML>", b'<!DOCTYPE CardiologyXML [<!ENTITY a "b">]><CardiologyXML>'
        )
    )
    with pytest.raises(BadSignal, match="document type"):
        list(reader(path).headings(path, Settings()))
    text = (
        strip(np.zeros((2, 10), int)).replace("Leads>2", "Leads>3").replace("Total>10", "Total>8")
    )
    (heading,) = found(written(tmp_path, text, pid="", encoding="UTF-8"))
    assert set(heading.findings) == {"inconsistent-header", "longer-than-header"}
    assert heading.subject == "Roe Ann"


def test_an_archive_indexes_it(
    tmp_path: Path, scan: Callable[[Path], list[Record | Reject]]
) -> None:
    counts = np.random.default_rng(0).integers(-300, 300, (12, 5000))
    written(tmp_path, strip(counts))
    (record,) = scan(tmp_path)
    assert isinstance(record, Record)
    assert set(str(record.fields["kinds"]).split(",")) == {"ECG"}
    assert record.fields["fs"] == 500
