"""Files of clinical formats, written for tests by their specifications: samples are whole numbers.

Nothing here is shared with the readers.
"""

from __future__ import annotations

import base64
import binascii
import struct
import zlib
from collections.abc import Sequence
from datetime import date

import numpy as np

# --- SCP-ECG: EN 1064 -----------------------------------------------------------------------------

SCP_LEADS = {"I": 1, "II": 2, "V1": 3, "V2": 4, "V3": 5, "V4": 6, "V5": 7, "V6": 8,
             "III": 61, "aVR": 62, "aVL": 63, "aVF": 64}  # fmt: skip


def scp(
    counts: Sequence[np.ndarray],
    names: Sequence[str],
    *,
    interval_us: int = 2000,
    avm_nv: int = 4880,
    huffman: bool = True,
    difference: int = 2,
    tags: Sequence[tuple[int, bytes]] = (),
    starts: Sequence[int] | None = None,
    beat: np.ndarray | None = None,
    beats_at: Sequence[int] = (),
) -> bytes:
    """A record of leads (N,) each.

    Args:
        interval_us: between samples.
        avm_nv: what one count stands for.
        huffman: pack by the standard's own table; else 16-bit integers.
        difference: 0, 1 or 2: how often neighbours are subtracted.
        tags: of section 1, (number, content).
        starts: each lead's first sample, from 1.
        beat: (M,) a reference beat, taken off each lead at the samples ``beats_at``.
    """
    starts = list(starts or [1] * len(counts))
    residuals = [np.asarray(lead, dtype=np.int64).copy() for lead in counts]
    sections: list[tuple[int, bytes]] = [
        (1, b"".join(struct.pack("<BH", tag, len(text)) + text for tag, text in tags) + b"\xff\0\0")
    ]
    if huffman:
        sections.append((2, struct.pack("<H", 19999)))
    flags = 0x04 | (len(counts) << 3) | (beat is not None)
    sections.append((3, struct.pack("<BB", len(counts), flags & 0xFF) + b"".join(
        struct.pack("<IIB", start, start + len(lead) - 1, SCP_LEADS[name])
        for start, lead, name in zip(starts, counts, names, strict=True)
    )))  # fmt: skip
    if beat is not None:
        length_ms = round(len(beat) * interval_us / 1000)
        zones = b"".join(struct.pack("<HIII", 0, at + 1, at + 1, at + len(beat)) for at in beats_at)
        guarded = b"".join(struct.pack("<II", at + 1, at + len(beat)) for at in beats_at)
        sections.append((4, struct.pack("<HHH", length_ms, 1, len(beats_at)) + zones + guarded))
        sections.append((5, _scp_leads([beat] * len(counts), interval_us, avm_nv, huffman, 1)))
        for residual in residuals:
            for at in beats_at:
                residual[at : at + len(beat)] -= beat
    sections.append((6, _scp_leads(residuals, interval_us, avm_nv, huffman, difference)))
    table_length = 16 + 10 * (len(sections) + 1)
    offset, pointers, bodies = 7 + table_length, [(0, table_length, 7)], b""
    for number, body in sections:
        body += b"\0" * (len(body) % 2)
        pointers.append((number, 16 + len(body), offset))
        bodies += _scp_section(number, body)
        offset += 16 + len(body)
    table = b"".join(struct.pack("<HII", *pointer) for pointer in pointers)
    everything = _scp_section(0, table, b"SCPECG") + bodies
    sized = struct.pack("<I", 6 + len(everything)) + everything
    return struct.pack("<H", binascii.crc_hqx(sized, 0xFFFF)) + sized


def _scp_section(number: int, body: bytes, reserved: bytes = b"\0" * 6) -> bytes:
    rest = struct.pack("<HIBB", number, 16 + len(body), 20, 20) + reserved + body
    return struct.pack("<H", binascii.crc_hqx(rest, 0xFFFF)) + rest


def _scp_leads(
    leads: Sequence[np.ndarray], interval: int, avm: int, huffman: bool, difference: int
) -> bytes:
    packed = []
    for lead in leads:
        coded = np.asarray(lead, dtype=np.int64)
        coded = np.concatenate([coded[:difference], np.diff(coded, difference)])
        packed.append(_huffman(coded) if huffman else coded.astype("<i2").tobytes())
    sizes = b"".join(struct.pack("<H", len(data)) for data in packed)
    return struct.pack("<HHBB", avm, interval, difference, 0) + sizes + b"".join(packed)


def _huffman(values: np.ndarray) -> bytes:
    bits = "".join(map(_huffman_code, values.tolist()))
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big") if bits else b""


def _huffman_code(value: int) -> str:
    if value == 0:
        return "0"
    if abs(value) <= 8:
        return "1" * abs(value) + "0" + ("1" if value < 0 else "0")
    if -128 <= value <= 127:
        return "1111111110" + f"{value & 0xFF:08b}"
    return "1111111111" + f"{value & 0xFFFF:016b}"


# --- Philips XML: SierraECG -----------------------------------------------------------------------


def philips(
    counts: np.ndarray, names: Sequence[str], *, fs: int = 500, uv: float = 5.0, who: str = "P123",
    version: str = "1.04", packed: bool = True,
) -> bytes:  # fmt: skip
    """Leads (C, N), of which III, aVR, aVL and aVF (the third to sixth) follow from I and II."""
    leads = [row.astype(np.int64) for row in counts]
    if packed and list(names[:6]) == ["I", "II", "III", "aVR", "aVL", "aVF"]:
        one, two, three = leads[:3]
        leads[2] = two - one - three
        leads[3] = -leads[3] - (one + two) // 2
        leads[4] = (one - three) // 2 - leads[4]
        leads[5] = (two + three) // 2 - leads[5]
    data = b"".join(map(_xli, leads)) if packed else counts.astype("<i2").tobytes()
    text = base64.encodebytes(data).decode()
    how = ' compressmethod="XLI"' if packed else ""
    seconds = round(counts.shape[1] * 1000 / fs)
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<restingecgdata xmlns="http://www3.medical.philips.com">
<documentinfo><documenttype>SierraECG</documenttype><documentversion>{version}</documentversion>
</documentinfo>
<patient><generalpatientdata><patientid>{who}</patientid><sex>Female</sex>
<age><years>51</years></age></generalpatientdata></patient>
<dataacquisition><signalcharacteristics><samplingrate>{fs}</samplingrate>
<resolution>{uv:g}</resolution><signaloffset>0</signaloffset><signalsigned>True</signalsigned>
<numberchannelsallocated>{len(names)}</numberchannelsallocated>
<numberchannelsvalid>{len(names)}</numberchannelsvalid><acquisitiontype>STD-12</acquisitiontype>
</signalcharacteristics></dataacquisition>
<waveforms><parsedwaveforms dataencoding="Base64"{how} durationperchannel="{seconds}"
 nbitspersample="16" numberofleads="{len(names)}" leadlabels="{" ".join(names)}">
{text}</parsedwaveforms></waveforms></restingecgdata>""".encode()


def _xli(lead: np.ndarray) -> bytes:
    """Second differences less their predecessor, high bytes before low ones, LZW of ten bits."""
    x = lead.tolist()
    codes = x[:2]
    last = start = 0
    for n in range(2, len(x)):
        # z = 2y − x − last, and what is stored is the next step's ``last`` + 64
        last = 2 * x[n - 1] - x[n - 2] - x[n]
        if n == 2:
            start = last
        else:
            codes.append(last + 64)
    codes.append(64)
    words = np.array(codes, dtype=np.int64).astype(">i2").tobytes()
    packed = _lzw(words[0::2] + words[1::2])
    return struct.pack("<iHh", len(packed), 0, start) + packed


def _lzw(data: bytes) -> bytes:
    strings = {bytes([n]): n for n in range(256)}
    bits, held = "", b""
    for byte in data:
        longer = held + bytes([byte])
        if longer in strings:
            held = longer
            continue
        bits += f"{strings[held]:010b}"
        if len(strings) <= 1022:
            strings[longer] = len(strings)
        held = bytes([byte])
    bits += f"{strings[held]:010b}" + f"{1023:010b}"
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


# --- MFER: ISO 22077 ------------------------------------------------------------------------------

MFER_LEADS = {"I": 1, "II": 2, "V1": 3, "V2": 4, "V3": 5, "V4": 6, "V5": 7, "V6": 8, "III": 61,
              "aVR": 62, "aVL": 63, "aVF": 64}  # fmt: skip


def mfer(
    counts: np.ndarray, names: Sequence[str], *, fs: int = 500, uv: int = 5, block: int = 0,
    little: bool = True, who: str = "P123",
) -> bytes:  # fmt: skip
    """Leads (C, N) in blocks of ``block`` samples (0: one block)."""
    block = block or counts.shape[1]
    order = "little" if little else "big"

    def tag(number: int, value: bytes) -> bytes:
        length = len(value)
        size = bytes([length]) if length < 128 else b"\x84" + length.to_bytes(4, "big")
        return bytes([number]) + size + value

    def whole(value: int, width: int) -> bytes:
        return value.to_bytes(width, order, signed=True)  # type: ignore[arg-type]

    sequences = counts.shape[1] // block
    leads = b"".join(
        bytes([0x3F, n]) + bytes([4]) + b"\x09\x02" + whole(MFER_LEADS[name], 2)
        for n, name in enumerate(names)
    )
    data = counts.reshape(len(names), sequences, block).transpose(1, 0, 2)
    return b"".join((
        tag(0x40, b"MFR Standard 12 leads ECG".ljust(32)),
        tag(0x01, bytes([little])),
        tag(0x82, who.encode()),
        tag(0x84, bytes([2])),
        tag(0x0B, bytes([0, 0]) + whole(fs, 2)),
        tag(0x0C, bytes([0, 256 - 6]) + whole(uv, 2)),
        tag(0x0A, bytes([0])),
        tag(0x04, whole(block, 4)),
        tag(0x05, bytes([len(names)])),
        tag(0x06, whole(sequences, 4)),
        leads,
        tag(0x1E, data.astype("<i2" if little else ">i2").tobytes()),
        b"\x80\0",
    ))  # fmt: skip


# --- GE MUSE --------------------------------------------------------------------------------------


def muse(
    counts: Sequence[np.ndarray], names: Sequence[str], *, fs: int = 500, uv: float = 4.88,
    kind: str = "Rhythm", about: str = "", top: str = '<!DOCTYPE RestingECG SYSTEM "restecg.dtd">',
    exponent: int = 0, unit: str = "MICROVOLTS", changed: tuple[str, str] = ("", ""),
) -> bytes:  # fmt: skip
    """Leads (N,) each; ``changed`` replaces text of the result."""
    leads = ""
    for row, name in zip(counts, names, strict=True):
        raw = row.astype("<i2").tobytes()
        leads += f"""<LeadData><LeadByteCountTotal>{len(raw)}</LeadByteCountTotal>
<LeadTimeOffset>0</LeadTimeOffset><LeadSampleCountTotal>{len(row)}</LeadSampleCountTotal>
<LeadAmplitudeUnitsPerBit>{uv}</LeadAmplitudeUnitsPerBit>
<LeadAmplitudeUnits>{unit}</LeadAmplitudeUnits><LeadID>{name}</LeadID>
<LeadSampleSize>2</LeadSampleSize><LeadOff>FALSE</LeadOff>
<LeadDataCRC32>{zlib.crc32(raw)}</LeadDataCRC32>
<WaveFormData>
{base64.encodebytes(raw).decode()}</WaveFormData></LeadData>"""
    waveform = f"""<Waveform><WaveformType>{kind}</WaveformType><SampleBase>{fs}</SampleBase>
<SampleExponent>{exponent}</SampleExponent>{leads}</Waveform>"""
    text = f'<?xml version="1.0" encoding="ISO-8859-1"?>\n{top}\n<RestingECG>{about}{waveform}'
    return (text + "</RestingECG>").replace(*changed).encode("latin-1")


# --- ISHNE Holter: Badilini 1998 ------------------------------------------------------------------

ISHNE_LEADS = {"X": 2, "Y": 3, "Z": 4, "I": 5, "II": 6, "III": 7, "aVR": 8, "aVL": 9, "aVF": 10,
               "V1": 11, "V2": 12, "V3": 13, "V4": 14, "V5": 15, "V6": 16, "ES": 17, "AS": 18,
               "AI": 19}  # fmt: skip


def ishne(
    counts: np.ndarray, names: Sequence[str], *, fs: int = 200, nv: Sequence[int] | int = 2500,
    who: str = "P123", comment: bytes = b"", sex: int = 2,
    born: tuple[int, int, int] = (2, 5, 1951),
    recorded: tuple[int, int, int] = (3, 6, 2010), frames: int | None = None,
) -> bytes:  # fmt: skip
    """Leads (C, N), of which one count stands for ``nv`` nanovolts."""
    channels = len(names)
    gains = [nv] * channels if isinstance(nv, int) else list(nv)

    def twelve(values: Sequence[int]) -> bytes:
        return struct.pack("<12h", *values, *[-9] * (12 - len(values)))

    fixed = struct.pack(
        "<iiiih40s40s20shh3h3h3h3hh", len(comment), frames or counts.shape[1], 522,
        522 + len(comment), 1, b"Anna", b"Kowalczyk", who.encode(), sex, 1, *born, *recorded,
        *recorded, 9, 30, 0, channels,
    )  # fmt: skip
    fixed += twelve([ISHNE_LEADS.get(name, 0) for name in names]) + twelve([1] * channels)
    fixed += twelve(gains) + struct.pack("<h40sh80s80s88s", 0, b"digital", fs, b"", b"", b"")
    header = fixed + comment
    assert len(fixed) == 522 - 10
    checksum = binascii.crc_hqx(header, 0xFFFF)
    return b"ISHNE1.0" + struct.pack("<H", checksum) + header + counts.T.astype("<i2").tobytes()


# --- GDF: Schlögl 2006 ----------------------------------------------------------------------------

GDF_TYPES = {"i1": 1, "u1": 2, "i2": 3, "u2": 4, "i4": 5, "u4": 6, "i8": 7, "f4": 16, "f8": 17,
             "i3": 279, "u3": 535}  # fmt: skip
GDF_UNITS = {"mV": 4274, "uV": 4275, "V": 4256, "mmHg": 3872, "%": 544, "": 0}


def gdf(
    counts: Sequence[np.ndarray], names: Sequence[str], rates: Sequence[int], *, version: float,
    kind: str, unit: str, digital: tuple[int, int], physical: tuple[float, float],
    who: str = "P123 Roe",
) -> bytes:  # fmt: skip
    """Channels (N,) each at its own rate, in records of one second."""
    channels, second = len(names), version > 1.9
    fixed = bytearray(256)
    fixed[:8] = f"GDF {version:.2f}".encode()
    fixed[8 : 8 + len(who)] = who.encode()
    records = len(counts[0]) // rates[0]
    if second:
        fixed[87] = 2  # female
        for at, day in {168: date(2011, 6, 3), 176: date(1951, 5, 2)}.items():
            struct.pack_into("<Q", fixed, at, (day.toordinal() + 366) << 32)  # as MATLAB counts
        struct.pack_into("<H", fixed, 184, channels + 1)
    else:
        struct.pack_into("<q", fixed, 184, 256 * (channels + 1))
    struct.pack_into("<q", fixed, 236, records)
    if version > 2.205:
        struct.pack_into("<d", fixed, 244, 1.0)
    else:
        struct.pack_into("<II", fixed, 244, 1, 1)
    struct.pack_into("<H" if second else "<I", fixed, 252, channels)

    def each(form: str, values: Sequence[object]) -> bytes:
        return b"".join(struct.pack(form, value) for value in values)

    calibration = "<d" if second else "<q"
    units = (
        bytes(6 * channels) + each("<H", [GDF_UNITS[unit]] * channels)
        if second
        else each("8s", [unit.encode()] * channels)
    )
    variable = b"".join((
        each("16s", [name.encode() for name in names]), bytes(80 * channels), units,
        each("<d", [physical[0]] * channels), each("<d", [physical[1]] * channels),
        each(calibration, [digital[0]] * channels), each(calibration, [digital[1]] * channels),
        bytes(80 * channels), each("<I", rates), each("<I", [GDF_TYPES[kind]] * channels),
        bytes(32 * channels),
    ))  # fmt: skip
    blocks = [np.asarray(x).reshape(records, fs) for x, fs in zip(counts, rates, strict=True)]
    body = b"".join(_gdf_bytes(block[n], kind) for n in range(records) for block in blocks)
    return bytes(fixed) + variable + body + bytes(8)  # and no event


def _gdf_bytes(values: np.ndarray, kind: str) -> bytes:
    if kind[1] != "3":
        return values.astype(f"<{kind}").tobytes()
    whole = values.astype("<i4").view(np.uint8).reshape(-1, 4)
    return whole[:, :3].tobytes()
