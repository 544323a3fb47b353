"""What public data sets, recorders and libraries call their channels: each is of the right kind.

A name that is not understood costs a channel; one that is misunderstood costs a study. So what is
worked out of a signal, measured values and columns about a signal are here too.
"""

from __future__ import annotations

import pytest

from medcl_biosignals.naming import meant
from medcl_biosignals.readers.columns import parted
from medcl_biosignals.readers.measures import known_unit
from medcl_biosignals.vocabulary import together, vocabulary

NAMES = {
    "ECG": """
    ECG | ECG1 | ECG 2 | EKG | EKG 1 | EKG.1 | ekg1 | ECG0 | ECG_0 | ECG_raw | ECG_Raw | ECG_Clean
    | ECG I | ECG II | EKG II | ECG-V1 | ECG V5 | ECG.II | ECG_II | ECG_V5 | ECG lead I
    | ECG_Lead_II | ECG Lead 1 | lead_I | Lead II | Lead aVF | I | II | III | i | AVR | aVL | avf
    | -aVR | V1 | v6 | V7 | V9 | V4R | vx | MLII | ML5 | MCL1 | CM5 | CC5 | CM2 | MV5 | mod.V1
    | V1-V2 | V2-V3 | DI | D1 | DIII | ECG1-ECG2 | EKG1-EKG2 | ECG L | ECG R | ECG L-ECG R
    | EKG-R-EKG-L | ECGL-ECGR | ECG LA-RA | ECG_LL-RA | ECG_Vx-RL | LA-RA | LL-LA
    | Shimmer_8E5F_ECG_LL-RA_24BIT_CAL | chest_ECG | ECG (mV) | ECG [uV] | ecg_uV | ECGmV
    | SNUADC/ECG_II | SNUADC/ECG_V5 | MDC_ECG_LEAD_II | Elektrokardiogramm | val_ecg | ECG ch1
    | Ch1 ECG | ECG100C | ECG Signal | bio_ecg | ECGI | ECGII
    """,
    "PPG": """
    PPG | PPG_raw | PPG_Raw | PPG_Clean | PPG1 | PPG 1 | ppg0 | ppg_0 | PLETH | Pleth
    | SNUADC/PLETH | BVP | wrist_BVP | E4_BVP | PPG_red | red | ir | IR | green1 | PPG Green
    | ppg_green | Infrared | PPG_A13_CAL | Shimmer_8E5F_PPG_A13_CAL | PlethR | PULSE | finger_ppg
    | pulse_wave | Plethysmogram | SpO2 wave | Pulse Ox Pleth | PlethWave | led_ir | ledIR | IR_LED
    | PPG-G1 | PPG_G | green_led | PPGIR | ppgred | Pleth IR | MAX30102_ir | ppg ch1
    | reflectance_ppg | ppgGreen | PPG.green | SPO2_PLETH
    """,
    "RESP": """
    RESP | Resp | RSP | RSP_Raw | RSP_Clean | Resp oro-nasal | THOR RES | ABDO RES | THOR | Abdo
    | Thorax | THORACIC | abdominal | Airflow | Flow | NEW AIR | NEWAIR | New A/F | Nasal
    | nasal pressure | Therm | thermistor | ABD | resp1 | RESP 2 | respiration | chest_Resp | RIP
    | Resp thorax | Resp abdomen | Resp chest | Resp nasal | Resp Airflow | Resp Thermistor | CO2
    | EtCO2 wave | Primus/CO2 | CAPNO | Effort THO | Effort ABD | PTAF | CFlow | Pressure nasal
    | Cannula | imp
    """,
    "ACC": """
    ACC | ACC_x | accX | acc x | AccelX | accelerometer_x | chest_ACC_x | wrist_ACC_z | ACC-X
    | Accelerometer X | LinearAccelX | Shimmer_8E5F_Accel_LN_X_CAL | Accel_WR_Y | X [mg]
    | acceleration_x | userAcceleration.x | acc0 | x-axis (g) | Accelerometer_x [g]
    | linear_acceleration_z | Low Noise Accelerometer X
    """,
    "EEG": """
    EEG Fpz-Cz | EEG Pz-Oz | C3 | C4-A1 | C3-A2 | EEG | EEG(sec) | EEG Sec | EEG1 | EEG 2 | F4-M1
    | C4M1 | Fpz | EEG C3-A2 | EEG F3-Ref | EEG Fp1-LE | Fz-Cz | FP1-F7 | EEG FP1-REF | C4:A1
    | T3-O1 | TP9 | AF7 | CZ-PZ | EEG_raw
    """,
    "EOG": """
    EOG horizontal | EOG(L) | EOG(R) | EOG Left | LOC | ROC | E1 | E2 | E1-M2 | E2-M1 | LOC-A2
    | ROC-A1 | EOG LOC-A2 | EOG_L | EOG ROC | EOG E1 | L-EOG | HEOG | VEOG | Left Eye | EOG-L
    """,
    "EMG": """
    EMG submental | EMG | Chin | EMG Chin | CHIN1-CHIN2 | Chin1 | chin EMG | LLeg | RLeg | L Leg
    | Leg | Leg/L | Leg/R | Leg1 | LEG-L | EMG1 | emg_raw | EMG chin1-chin2 | PLMl | PLMr | Tib
    | EMG Ant Tibial L | chest_EMG | Lchin | Cchin | Rchin | Chin-L
    """,
    "EDA": """
    EDA | GSR | wrist_EDA | EDA_Raw | EDA (uS) | skin conductance | SCL | SCR | EDA_Tonic
    | GSR_Skin_Conductance_CAL | foot GSR | hand GSR | galvanic | Electrodermal
    """,
    "pressure": """
    ABP | ART | ART1 | SNUADC/ART | BP | CVP | SNUADC/CVP | PAP | ICP | FEM | SNUADC/FEM
    | BP_finger | Finapres | LVP | AOP | ABP1 | reBAP | IBP | UAP
    """,
    "numeric": """
    HR | H.R. | Heart Rate | HeartRate | hr_bpm | SpO2 | SaO2 | %SpO2 | OX STAT | Sat O2 | PR
    | Pulse Rate | TEMP | Temp rectal | wrist_TEMP | Resp Rate | RespRate | RR | CO2_RR | PULSE_bpm
    | PPG_Rate | ECG_Rate | ECG_Quality | ECG_R_Peaks | EKG_Off | ABPmean | ABPsys
    | Solar8000/HR | Solar8000/PLETH_SPO2 | Solar8000/PLETH_HR | Solar8000/ART_MBP
    | Solar8000/NIBP_SBP | NIBP | EtCO2 | TidVol | ibi | beats per minute | bpm | DHR | OxStatus
    | Infrared to Red Signal Ratio | battery | steps | cadence | power | RMSSD
    """,
    "other": "lat | lon | latitude | A | x | heart | POSITION | Snore | LIGHT | channel 0 | r | ax",
}
CASES = [(kind, name.strip()) for kind, text in NAMES.items() for name in text.split("|")]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_the_kind_of_a_name(kind: str, name: str) -> None:
    bare, unit = parted(name)
    found = meant(bare, vocabulary({}), unit=known_unit(unit))
    assert found.kind == kind, found


def test_names_that_mean_something_together() -> None:
    imu = ["time", "aX", "aY", "aZ", "gx", "gy", "gz"]
    kinds = [meant(name, vocabulary({})).kind for name in together(imu)]
    assert kinds[1:] == ["ACC"] * 3 + ["gyroscope"] * 3
    polar = ["channel 0", "channel 1", "channel 2", "ambient"]
    found = [meant(name, vocabulary({})).kind for name in together(polar)]
    assert found == ["PPG"] * 3 + ["other"]  # the light of the room is no pulse
    assert together(["ax", "ay", "channel 0"]) == ["ax", "ay", "channel 0"]
