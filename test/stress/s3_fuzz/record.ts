/** Requests as real clients send them, recorded byte by byte on their way to a door. */
import { once } from "node:events";
import { connect, createServer } from "node:net";
import { Readable } from "node:stream";
import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CopyObjectCommand,
  CreateBucketCommand,
  CreateMultipartUploadCommand,
  DeleteBucketLifecycleCommand,
  DeleteObjectCommand,
  DeleteObjectsCommand,
  DeleteObjectTaggingCommand,
  GetBucketLocationCommand,
  GetObjectAttributesCommand,
  GetObjectCommand,
  GetObjectTaggingCommand,
  HeadBucketCommand,
  HeadObjectCommand,
  ListBucketsCommand,
  ListMultipartUploadsCommand,
  ListObjectsCommand,
  ListObjectsV2Command,
  ListPartsCommand,
  PutBucketLifecycleConfigurationCommand,
  PutObjectCommand,
  PutObjectTaggingCommand,
  S3Client,
  UploadPartCommand,
  UploadPartCopyCommand,
} from "@aws-sdk/client-s3";
import { Client as MinioClient } from "minio";
import { ACCESS_KEY, type S3Daemon, SECRET_KEY } from "../../support/s3.js";

const REGION = "us-east-1";

/** What came over each connection, in the order in which they were opened. */
export async function record(door: S3Daemon, work: (endpoint: string) => Promise<void>): Promise<Buffer[]> {
  const connections: Buffer[][] = [];
  const server = createServer((near) => {
    const came: Buffer[] = [];
    connections.push(came);
    const far = connect(door.port, door.host);
    near.on("data", (bytes: Buffer) => came.push(bytes));
    near.pipe(far).pipe(near);
    near.on("error", () => far.destroy());
    far.on("error", () => near.destroy());
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  try {
    await work(`http://127.0.0.1:${(server.address() as { port: number }).port}`);
  } finally {
    server.close();
  }
  return connections.map((came) => Buffer.concat(came)).filter((bytes) => bytes.includes("\r\n\r\n"));
}

/** One request of every kind, each on a connection of its own. `signed` false: nobody signs them. */
export async function useAmazonsClient(endpoint: string, bucket: string, signed: boolean): Promise<void> {
  const client = new S3Client({
    endpoint,
    region: REGION,
    forcePathStyle: true,
    credentials: { accessKeyId: ACCESS_KEY, secretAccessKey: SECRET_KEY },
    maxAttempts: 1,
    requestHandler: { httpAgent: { keepAlive: false } },
    ...(signed ? {} : { signer: { sign: async (request) => request } }),
  });
  const at = { Bucket: bucket };
  const object = { ...at, Key: "a folder/ünï+%?&=key" };
  const body = "hello, body";
  await client.send(new CreateBucketCommand(at));
  await client.send(new HeadBucketCommand(at));
  await client.send(new ListBucketsCommand({}));
  await client.send(new GetBucketLocationCommand(at));
  await client.send(new PutObjectCommand({ ...at, Key: "k", Body: body, IfNoneMatch: "*" }));
  await client.send(
    new PutObjectCommand({
      ...object,
      Body: body,
      ContentType: "text/plain",
      CacheControl: "no-cache",
      Metadata: { one: "1", two: "a  b" },
      Tagging: "a=b&c=%C3%BC",
      ChecksumAlgorithm: "SHA256",
    }),
  );
  // In chunks with a trailer, as it comes.
  for (const checksum of ["CRC32", "CRC32C"] as const) {
    const stream = Readable.from([Buffer.from("first,"), Buffer.from("second")]);
    await client.send(
      new PutObjectCommand({
        ...at,
        Key: checksum,
        Body: stream,
        ContentLength: 12,
        ChecksumAlgorithm: checksum,
      }),
    );
  }
  const head = await client.send(new HeadObjectCommand(object));
  await client.send(new GetObjectCommand({ ...object, Range: "bytes=1-4", IfMatch: head.ETag as string }));
  await client.send(
    new GetObjectCommand({
      ...object,
      IfModifiedSince: new Date(0),
      ...(signed ? { ResponseContentType: "text/x" } : {}),
      ChecksumMode: "ENABLED",
    }),
  );
  await client.send(new GetObjectAttributesCommand({ ...object, ObjectAttributes: ["ETag", "ObjectSize"] }));
  await client.send(
    new CopyObjectCommand({ ...at, Key: "copy", CopySource: `${bucket}/k`, CopySourceIfMatch: "*" }),
  );
  const tags = { TagSet: [{ Key: "k", Value: "v <&>" }] };
  await client.send(new PutObjectTaggingCommand({ ...object, Tagging: tags }));
  await client.send(new GetObjectTaggingCommand(object));
  await client.send(new DeleteObjectTaggingCommand(object));
  await client.send(
    new PutBucketLifecycleConfigurationCommand({
      ...at,
      LifecycleConfiguration: {
        Rules: [{ ID: "r", Status: "Enabled", Filter: { Prefix: "tmp/" }, Expiration: { Days: 3 } }],
      },
    }),
  );
  await client.send(new DeleteBucketLifecycleCommand(at));
  await client.send(new ListObjectsCommand({ ...at, Prefix: "a", Delimiter: "/", Marker: "a", MaxKeys: 5 }));
  await client.send(
    new ListObjectsV2Command({ ...at, Delimiter: "/", StartAfter: "a", EncodingType: "url" }),
  );
  const page = await client.send(new ListObjectsV2Command({ ...at, MaxKeys: 1 }));
  await client.send(
    new ListObjectsV2Command({ ...at, ContinuationToken: page.NextContinuationToken as string }),
  );
  const { UploadId: uploadId } = await client.send(new CreateMultipartUploadCommand(object));
  const upload = { ...object, UploadId: uploadId as string };
  const part = await client.send(new UploadPartCommand({ ...upload, PartNumber: 1, Body: body }));
  await client.send(
    new UploadPartCopyCommand({
      ...upload,
      PartNumber: 2,
      CopySource: `${bucket}/k`,
      CopySourceRange: "bytes=0-3",
    }),
  );
  await client.send(new ListPartsCommand(upload));
  await client.send(new ListMultipartUploadsCommand({ ...at, Prefix: "a" }));
  await client.send(
    new CompleteMultipartUploadCommand({
      ...upload,
      MultipartUpload: { Parts: [{ PartNumber: 1, ETag: part.ETag as string }] },
    }),
  );
  const other = await client.send(new CreateMultipartUploadCommand({ ...at, Key: "other" }));
  await client.send(
    new AbortMultipartUploadCommand({ ...at, Key: "other", UploadId: other.UploadId as string }),
  );
  await client.send(new DeleteObjectCommand({ ...at, Key: "copy" }));
  await client.send(
    new DeleteObjectsCommand({ ...at, Delete: { Objects: [{ Key: "x" }, { Key: "y & z" }], Quiet: true } }),
  );
  client.destroy();
}

/** Beside what Amazon's does: bodies in signed chunks, and requests that are signed in their query. */
export async function useMinioClient(endpoint: string, bucket: string): Promise<void> {
  const { hostname, port } = new URL(endpoint);
  const client = new MinioClient({
    endPoint: hostname,
    port: Number(port),
    useSSL: false,
    region: REGION,
    accessKey: ACCESS_KEY,
    secretKey: SECRET_KEY,
  });
  await client.putObject(bucket, "minio", Readable.from([Buffer.from("signed chunks")]), 13, {
    "x-amz-meta-a": "b",
  });
  for await (const _ of client.listObjectsV2(bucket, "m", true));
  const get = await client.presignedGetObject(bucket, "minio", 60, { "response-content-type": "text/x" });
  await (await fetch(get, { headers: { connection: "close" } })).arrayBuffer();
  const put = await client.presignedPutObject(bucket, "minio put", 60);
  await (await fetch(put, { method: "PUT", body: "x", headers: { connection: "close" } })).arrayBuffer();
}

/** The payload's bytes as they came: what follows the head. */
export function bodyOf(request: Buffer): Buffer {
  return Buffer.from(request.subarray(request.indexOf("\r\n\r\n") + 4));
}
