"""Biosignals for medcl: ECG, PPG and other waveforms, from recordings to views and encoders."""
