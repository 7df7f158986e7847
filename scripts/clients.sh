#!/usr/bin/env bash
# Installs what test/conformance drives the S3 door with, into build/clients:
#
#   scripts/clients.sh           the Python clients of test/conformance/requirements.txt, as CI does
#   scripts/clients.sh restic    restic, from its Go module
#   scripts/clients.sh minio     the MinIO server, `millrace bench s3`'s rival, from its Go module: some minutes
#   scripts/clients.sh spark     Spark with hadoop-aws: about 1.2 GB from PyPI and Maven Central
#   scripts/clients.sh spark-s3-shuffle   IBM's plugin for Spark's shuffle, from its sources on GitHub; Spark, too
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
# Its packages are on GitHub alone and want a login there, and none is for Spark 4; its sources are for anyone. Any clone
# of them will do: SPARK_S3_SHUFFLE_REPOSITORY.
SPARK_S3_SHUFFLE=${SPARK_S3_SHUFFLE_REPOSITORY:-https://github.com/IBM/spark-s3-shuffle}
SPARK_S3_SHUFFLE_COMMIT=55078e428b5cfb58491eb1773f5d606587ec902e

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

spark_s3_shuffle() {
  spark
  local jar="$PWD/$clients/spark-s3-shuffle.jar"
  if [ -f "$jar" ]; then return; fi
  local work
  work=$(mktemp -d)
  git clone --quiet "$SPARK_S3_SHUFFLE" "$work/source"
  git -C "$work/source" checkout --quiet "$SPARK_S3_SHUFFLE_COMMIT"
  # What its own build generates.
  cat > "$work/build.scala" <<'SCALA'
package com.ibm
object SparkS3ShuffleBuild {
  val (name, version, sparkVersion, scalaVersion) = ("spark-s3-shuffle", "from source", "4", "2.13")
}
SCALA
  mkdir "$work/classes"
  # The compiler that Spark's shell brings along.
  local spark_jars
  spark_jars=$("$clients/bin/python" -c 'import pyspark, os; print(os.path.dirname(pyspark.__file__))')/jars
  java -cp "$spark_jars/*" scala.tools.nsc.Main -usejavacp -nowarn -d "$work/classes" \
    "$work/build.scala" $(find "$work/source/src/main" -name '*.scala')
  (cd "$work/classes" && python3 -m zipfile --create "$work/plugin.jar" com org)
  mv "$work/plugin.jar" "$jar"
  rm -rf "$work"
}

python_clients
for name in "$@"; do
  case "$name" in
    restic) go_program restic "$RESTIC" ;;
    minio) go_program minio "$MINIO" ;;
    spark) spark ;;
    spark-s3-shuffle) spark_s3_shuffle ;;
    *)
      echo "no such client: $name; there are restic, minio, spark, spark-s3-shuffle" >&2
      exit 2
      ;;
  esac
done
