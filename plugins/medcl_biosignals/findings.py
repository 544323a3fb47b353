"""What is noticed of a recording that can be used, in words. Reported and accepted, never set."""

from __future__ import annotations

from medcl.archive.policies import Finding

_ABOUT = {
    "patient-is-record-name": "names no person: each counts as a person of its own, by its name",
    "patient-is-folder": "names no person: its folder counts as one",
    "several-records-a-patient": "is of a data set with several recordings of a person; give its "
    "table of patients (--table), or they leak between training and test",
    "shared-signal-file": "shares its bytes with another recording: their person may be one",
    "lacks": "lacks the channel {}: zero in the samples, and marked as absent",
    "took": "gave channels of the kind {}, where the recipe takes any",
    "fill-values": "has numbers such as −9999 in place of missing samples: they became gaps",
    "gaps": "stops and goes on: samples are missing",
    "truncated": "ends too early: what is there is read",
    "longer-than-header": "is longer than its header says",
    "inconsistent-header": "has a header that contradicts itself: what is there is read",
    "bad-checksum": "has another checksum than its header says",
    "fs-mismatch": "has another rate than reader.fs; the file's counts",
    "irregular-times": "has uneven times: it was interpolated to a rate near theirs",
    "repeated-times": "repeats times of a coarse clock: its rate is that between the clock's ticks",
    "reversed-times": "has its rows in reverse: they were turned",
    "unsorted-times": "has rows out of order: they were sorted",
    "rows-without-time": "has rows without a time (under 1 %): they were left out",
    "clocks-changed": "runs over a change of the local clock: no gap",
    "counter-began-anew": "has a counter that passed its largest number and went on",
    "values-on-a-grid": "has values at uneven times: each cell of a grid holds their mean",
    "counts-left-out": "has counts (steps, energy), which were left out",
    "rows-are-windows": "is a stack of windows: each row became a recording",
    "rows-are-samples": "has rows that were read as samples of as many channels; if they are "
    "windows: --set reader.rows=windows",
    "assumed-seconds": "has plain numbers as times, taken for seconds by the rate that follows",
    "assumed-milliseconds": "has plain numbers as times, taken for milliseconds by the rate that "
    "follows",
    "assumed-250-hz": "names no rate: 250 Hz, the default of its format",
    "assumed-1000-hz": "names no rate: 1000 Hz, the default of its format",
    "bins-missing": "is a table whose JSON files with the minutes are not there",
    "pauses-left-out": "has pauses: the first stretch is read",
    "long-term-part-left-out": "has a long-term part, which was left out",
    "other-frames-left-out": "has frames of another kind, which were left out",
    "derived-waveform": "is computed from others by the recorder",
    "unexplained-offset": "has an offset of which nothing says what it is",
    "unequal-lengths": "has channels of different lengths",
    "unknown-channel": "has a channel of no known kind",
    "kind-by-unit": "has a channel whose kind is known by its unit alone",
    "no-waveform": "has measured values alone, and no waveform",
    "unit-of-no-waveform": "has measured values, known by their unit: no beats are looked for",
    "rate-of-no-waveform": "has measured values, known by their rate: no beats are looked for",
    "no-unit": "names no unit of a channel that is usually converted: taken as it is",
    "unknown-unit": "has a unit that is not understood: taken as it is",
    "mixed-units": "has several units in one kind of channel",
    "unit-not-converted": "has a unit that does not convert: taken as it is",
    "implausible-amplitude": "has a voltage of volts: look at its unit",
    "uncalibrated-channel": "has a channel without a gain",
    "empty-channel": "has a channel without a sample",
    "lead-off": "says that an electrode was off",
    "derived-leads": "lacks leads that were computed from others",
    "averaged-beat-left-out": "has an averaged beat beside the recording: it was left out",
    "leads-not-simultaneous": "has leads that follow one another",
    "beats-without-class": "has beats marked by a program, all alike: they have no class",
    "unreadable-annotations": "has annotations that cannot be read",
    "unknown-annotations": "has annotations in words of its own",
    "says-it-is-continuous": "has pauses, though its header says that it has none",
    "overlapping-records": "has blocks that overlap in time",
}
FINDINGS: dict[str, Finding] = {
    name: Finding("note", "accept", ("accept",), about) for name, about in _ABOUT.items()
}
