#!/usr/bin/env bash
# Installs what test/conformance drives the S3 door with, into build/clients:
#
#   scripts/clients.sh           the Python clients of test/conformance/requirements.txt, as CI does
#   scripts/clients.sh restic    restic, from its Go module
#   scripts/clients.sh minio     the MinIO server, `millrace bench s3`'s rival, from its Go module: some minutes
#   scripts/clients.sh spark     Spark with hadoop-aws: about 1.2 GB from PyPI and Maven Central
#
# Each is left alone where it is there already.
set -euo pipefail
cd "$(dirname "$0")/.."

clients=build/clients
RESTIC=github.com/restic/restic/cmd/restic@v0.18.1
MINIO=github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c
# hadoop-aws has to be of the version of the Hadoop jars in pyspark, the AWS bundle of the one that hadoop-aws wants.
PYSPARK=pyspark==4.0.1
SPARK_JARS=(org.apache.hadoop:hadoop-aws:3.4.1 software.amazon.awssdk:bundle:2.24.6)

python_clients() {
  if cmp -s test/conformance/requirements.txt "$clients/requirements.txt"; then return; fi
  python3 -m venv "$clients"
  "$clients/bin/pip" install --quiet --disable-pip-version-check -r test/conformance/requirements.txt
  cp test/conformance/requirements.txt "$clients/requirements.txt"
}

go_program() {
  if [ -x "$clients/bin/$1" ]; then return; fi
  mkdir -p "$clients/bin"
  GOBIN="$PWD/$clients/bin" go install "$2"
}

spark() {
  local jars="$clients/spark-jars"
  if [ ! -x "$clients/bin/spark-submit" ]; then
    "$clients/bin/pip" install --quiet --disable-pip-version-check "$PYSPARK"
  fi
  if [ -f "$jars/complete" ]; then return; fi
  mkdir -p "$jars"
  for artifact in "${SPARK_JARS[@]}"; do
    mvn --quiet --batch-mode org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy \
      "-Dartifact=$artifact" "-DoutputDirectory=$PWD/$jars"
  done
  touch "$jars/complete"
}

python_clients
for name in "$@"; do
  case "$name" in
    restic) go_program restic "$RESTIC" ;;
    minio) go_program minio "$MINIO" ;;
    spark) spark ;;
    *)
      echo "no such client: $name; there are restic, minio, spark" >&2
      exit 2
      ;;
  esac
done
