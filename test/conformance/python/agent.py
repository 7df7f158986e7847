"""One S3 library of Python's behind lines of JSON: a request a line on stdin, a reply a line on stdout.

    agent.py boto3|pyarrow

The door is found by the AWS_ variables of the environment. Bytes travel through files.
"""

import json
import os
import sys


class Boto3:
    def __init__(self):
        import boto3
        from botocore.config import Config

        # Without a proper name for a host there is no other style.
        self.s3 = boto3.client("s3", config=Config(s3={"addressing_style": "path"}))

    def makeBucket(self, bucket):
        self.s3.create_bucket(Bucket=bucket)

    def put(self, bucket, key, file, partBytes):
        with open(file, "rb") as body:
            self.s3.put_object(Bucket=bucket, Key=key, Body=body)

    def putInParts(self, bucket, key, file, partBytes):
        from boto3.s3.transfer import TransferConfig

        config = TransferConfig(multipart_threshold=partBytes, multipart_chunksize=partBytes)
        self.s3.upload_file(file, bucket, key, Config=config)

    def get(self, bucket, key, file):
        with open(file, "wb") as out:
            out.write(self.s3.get_object(Bucket=bucket, Key=key)["Body"].read())

    def getRange(self, bucket, key, offset, length, file):
        wanted = f"bytes={offset}-{offset + length - 1}"
        with open(file, "wb") as out:
            out.write(self.s3.get_object(Bucket=bucket, Key=key, Range=wanted)["Body"].read())

    def list(self, bucket, prefix):
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


class PyArrow:
    def __init__(self):
        from pyarrow import fs

        self.fs_module = fs
        self.fs = fs.S3FileSystem(
            endpoint_override=os.environ["AWS_ENDPOINT_URL"],
            allow_bucket_creation=True,
            background_writes=True,
        )

    def makeBucket(self, bucket):
        self.fs.create_dir(bucket)

    def put(self, bucket, key, file, partBytes):
        # Arrow sends all but the smallest files in parts.
        with open(file, "rb") as body, self.fs.open_output_stream(f"{bucket}/{key}") as out:
            while piece := body.read(1_000_000):
                out.write(piece)

    putInParts = put

    def get(self, bucket, key, file):
        with self.fs.open_input_stream(f"{bucket}/{key}") as body, open(file, "wb") as out:
            out.write(body.read())

    def getRange(self, bucket, key, offset, length, file):
        with self.fs.open_input_file(f"{bucket}/{key}") as body, open(file, "wb") as out:
            out.write(body.read_at(length, offset))

    def list(self, bucket, prefix):
        # What it lists is a folder.
        selector = self.fs_module.FileSelector(f"{bucket}/{prefix}".rstrip("/"), recursive=True)
        infos = self.fs.get_file_info(selector)
        files = [info.path for info in infos if info.type == self.fs_module.FileType.File]
        return sorted(path.removeprefix(f"{bucket}/") for path in files)


def main():
    library = {"boto3": Boto3, "pyarrow": PyArrow}[sys.argv[1]]()
    for line in sys.stdin:
        request = json.loads(line)
        reply = {"error": None}
        try:
            keys = getattr(library, request.pop("call"))(**request)
            if keys is not None:
                reply["keys"] = keys
        except Exception as error:
            reply["error"] = f"{type(error).__name__}: {error}"
        print(json.dumps(reply), flush=True)


main()
