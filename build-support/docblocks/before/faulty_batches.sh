# A database of its own with June and July of 1997, July's with three faulty rows; August's batch has
# a hundred. "$EDITOR" mends two rows of three.
set -e
.espalier/stack/psql -qc 'CREATE DATABASE faulty_batches'
export POSTGRES_DB=faulty_batches
export ESPALIER_DATA_DIR="$PWD/faulty_batches" ESPALIER_REPORTS_DIR="$PWD/faulty_batches"

mkdir -p faulty_batches/churn
cp -r data/seeds/churn/month_00[0-2] faulty_batches/churn/
spoil() { # BATCH LINES: from line 3 on
  awk -F, -v OFS=, -v last="$(($2 + 2))" 'NR >= 3 && NR <= last { $5 = -1 } { print }' \
    "data/seeds/churn/$1/features.csv" >"faulty_batches/churn/$1/features.csv"
}
spoil month_001 3
spoil month_002 100

export EDITOR="$PWD/faulty_batches/editor"
cat >"$EDITOR" <<'PYTHON'
#!/usr/bin/env python3
import csv, sys
with open(sys.argv[1], newline="") as file:
    rows = list(csv.DictReader(file))
for row in rows[:-1]:
    row["orders_total"] = "1"
with open(sys.argv[1], "w", newline="") as file:
    writer = csv.DictWriter(file, rows[0])
    writer.writeheader()
    writer.writerows(rows)
PYTHON
chmod +x "$EDITOR"

dist/espalier.pex migrate
dist/churn-ingest.pex --as-of 1997-06-30
dist/churn-ingest.pex --as-of 1997-07-31
set +e
