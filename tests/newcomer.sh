#!/usr/bin/env bash
# What a newcomer does, with the wheel alone: a fresh virtual environment, folders of one's own, and the
# commands of docs/start/ and docs/how-to/ as they stand there. Ends with the seconds of each modality.
# newcomer.sh WHEEL DATA [PYTHON] [ENVIRONMENT: one that is there already]
# DATA holds ct, ecg, mil, ppg and wsi: see newcomer_data.py.
set -euo pipefail
wheel=$(realpath "$1")
data=$(realpath "$2")
python=${3:-python3}
here=$(realpath "$(dirname "$0")")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset PYTHONPATH
cd "$work"
if [ -n "${4:-}" ]; then
  bin=$(realpath "$4")/bin
else
  "$python" -m venv venv
  bin=$work/venv/bin
  "$bin/pip" install --quiet --disable-pip-version-check "$wheel"
fi
"$bin/python" "$here/newcomer_data.py" "$data" own

run() { # one command as it is typed; what it says goes on the screen
  echo "\$ $*"
  commands=$((commands + 1))
  "$bin/medcl" "${@:2}"
}

spend() { # CPU seconds of all commands so far, into $spent; a subshell would count its own
  times > "$work/times"
  spent=$(tail -1 "$work/times" | tr 'ms' '  ' | awk '{printf "%d", 60 * ($1 + $3) + $2 + $4}')
}

begin() { # a folder for a modality, and its clock
  mkdir -p "$work/$1" && cd "$work/$1"
  spend
  modality=$1 commands=0 started=$SECONDS cpu=$spent
}

end() {
  spend
  printf '%s\t%d\t%d\t%d\n' "$modality" "$commands" $((SECONDS - started)) $((spent - cpu)) >> "$work/clock.tsv"
}

begin ct
cp -r ../own/scans scans && cp ../own/scans.csv labels.csv
run medcl index scans --plugin ct --out idx
run medcl curate --data idx --strategy dhash --distance 6 --recipe ct/demo --out less
run medcl pretrain ct/demo --data less --out run
run medcl probe run --localisation
run medcl report run
run medcl embed run --out embeddings
run medcl finetune run --labels labels.csv --folds 2 --out study
run medcl evaluate study --fast
run medcl report study
run medcl predict study scans --out predictions.parquet
test -s study/report.html
end

begin ecg
cp -r ../own/ecgs ecgs && cp ../own/ecgs.csv labels.csv
run medcl index ecgs --plugin biosignals --out idx
run medcl encoders
run medcl embed ecg-small ecgs --out embeddings --paths
run medcl finetune ecg-small --data ecgs --labels labels.csv --folds 2 --out study -s classifier.name=linear-handcrafted
run medcl evaluate study --fast
run medcl report study
run medcl predict study ecgs --out predictions.parquet
test -s study/report.html
end

begin features
cp -r ../own/features FEATURES && cp ../own/features.csv dataset.csv
run medcl finetune pathology/abmil --data FEATURES --labels dataset.csv --folds 2 --out study
run medcl evaluate study
run medcl report study
run medcl predict study FEATURES --out predictions.parquet
test -s study/report.html
end

begin slides
cp -r ../own/slides slides
run medcl index slides --plugin pathology --out idx
run medcl index slides --plugin pathology --out idx --set reader.mpp=0.5
run medcl prepare pathology/demo --data idx --look look
run medcl pretrain pathology/demo --data idx --out run
run medcl probe run --localisation
run medcl report run
run medcl embed run --bags --out bags
test -s run/report.html
end

begin wearables
cp -r ../own/ppg ppg && cp ../own/ppg.csv labels.csv
run medcl index ppg --plugin biosignals --out idx --set reader.fs=100
run medcl beats ppg --out beats --format csv --set reader.fs=100
run medcl pretrain biosignals/ppg-demo --data idx --out run
run medcl probe run --labels labels.csv
run medcl report run
run medcl embed run --out embeddings
run medcl finetune run --labels labels.csv --folds 2 --out study -s classifier.name=linear-handcrafted
run medcl evaluate study --fast
run medcl report study
run medcl predict study ppg --out predictions.parquet
test -s study/report.html
end

printf 'modality\tcommands\tseconds\tCPU seconds\n'
cat "$work/clock.tsv"
