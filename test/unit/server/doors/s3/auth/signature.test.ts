import { SignatureV4 } from "@smithy/signature-v4";
import { describe, expect, it } from "vitest";
import type { Authorization } from "../../../../../../server/doors/s3/auth/authorization.js";
import { KeyRing } from "../../../../../../server/doors/s3/auth/credentials.js";
import { authorize } from "../../../../../../server/doors/s3/auth/signature.js";
import { SigningKeys, signingKey } from "../../../../../../server/doors/s3/auth/signing.js";
import { S3Error } from "../../../../../../server/doors/s3/errors.js";
import { printedSeed, type Random, randomOf } from "../../../../../support/random.js";
import { requestOf, Sha256 } from "../requests.js";

const ACCESS_KEY = "AKIAIOSFODNN7EXAMPLE";
const SECRET_KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const EXAMPLE_UNIX_MS = Date.UTC(2013, 4, 24);
const NOW_UNIX_MS = Date.UTC(2026, 0, 2, 3, 4, 5);
const EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

const ring = new KeyRing({
  accessKey: ACCESS_KEY,
  secretKey: SECRET_KEY,
  anonymous: false,
  nowUnixMs: () => NOW_UNIX_MS,
});

interface Sent {
  method: string;
  path: string;
  query: string;
  headers: Record<string, string>;
}

function check(sent: Sent, nowUnixMs = NOW_UNIX_MS, keys = ring): Authorization {
  const headers = Object.entries(sent.headers).flat();
  return authorize(requestOf(sent.method, sent.path, sent.query, headers), keys, nowUnixMs);
}

function codeOf(act: () => unknown): string {
  try {
    act();
  } catch (thrown) {
    if (thrown instanceof S3Error) return thrown.code;
    throw thrown;
  }
  return "none";
}

const encode = (text: string) =>
  encodeURIComponent(text).replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);

function queryText(query: Record<string, string | string[] | null>): string {
  return Object.entries(query)
    .flatMap(([name, value]) => [value ?? ""].flat().map((one) => `${encode(name)}=${encode(one)}`))
    .join("&");
}

interface Plan {
  method: string;
  key: string;
  query: Record<string, string | string[]>;
  headers: Record<string, string>;
}

interface SignOptions {
  presign?: boolean;
  keys?: { accessKey: string; secretKey: string; sessionToken?: string };
  region?: string;
  service?: string;
  signingUnixMs?: number;
  expiresIn?: number;
}

/** As an AWS SDK signs it. */
async function signed(plan: Plan, options: SignOptions = {}): Promise<Sent> {
  const keys = options.keys ?? { accessKey: ACCESS_KEY, secretKey: SECRET_KEY };
  const signer = new SignatureV4({
    service: options.service ?? "s3",
    region: options.region ?? "eu-north-1",
    credentials: {
      accessKeyId: keys.accessKey,
      secretAccessKey: keys.secretKey,
      ...(keys.sessionToken === undefined ? {} : { sessionToken: keys.sessionToken }),
    },
    sha256: Sha256,
    uriEscapePath: false,
  });
  const path = `/bucket/${plan.key.split("/").map(encode).join("/")}`;
  const request = {
    method: plan.method,
    protocol: "http:",
    hostname: "localhost",
    port: 9000,
    path,
    query: plan.query,
    headers: { host: "localhost:9000", ...plan.headers },
  };
  const signingDate = new Date(options.signingUnixMs ?? NOW_UNIX_MS);
  const out = options.presign
    ? await signer.presign(request, { signingDate, expiresIn: options.expiresIn ?? 900 })
    : await signer.sign(request, { signingDate });
  return { method: out.method, path: out.path, query: queryText(out.query ?? {}), headers: out.headers };
}

const PUT: Plan = {
  method: "PUT",
  key: "key",
  query: {},
  headers: { "x-amz-content-sha256": "UNSIGNED-PAYLOAD" },
};
const PIECES = [
  "a",
  "Z",
  "0",
  " ",
  "+",
  "%",
  "%41",
  "//",
  "/",
  "~",
  ".",
  "..",
  "ß",
  "日本",
  "𝄞",
  "&",
  "=",
  "?",
  "#",
  "*",
];

function text(random: Random, piecesMax: number): string {
  return Array.from({ length: random.below(piecesMax + 1) }, () => random.pick(PIECES)).join("");
}

function plan(random: Random): Plan {
  const query: Plan["query"] = {};
  for (let count = random.below(5); count > 0; count--) {
    const name = `${text(random, 3)}q`;
    query[name] = random.below(3) === 0 ? [text(random, 2), "", text(random, 2)] : text(random, 3);
  }
  const headers: Plan["headers"] = {
    "x-amz-content-sha256": random.pick(["UNSIGNED-PAYLOAD", EMPTY_SHA256]),
  };
  if (random.below(2) === 0) headers["x-amz-meta-one"] = "  blanks   inside  and around ";
  if (random.below(2) === 0) headers["content-type"] = "text/plain;  charset=utf-8";
  if (random.below(2) === 0) headers.range = "bytes=0-9";
  return {
    method: random.pick(["GET", "PUT", "POST", "DELETE", "HEAD"]),
    key: `k${text(random, 8)}`,
    query,
    headers,
  };
}

describe("signature of an S3 request", () => {
  it("holds AWS's published examples", () => {
    const host = "examplebucket.s3.amazonaws.com";
    const credential = `${ACCESS_KEY}/20130524/us-east-1/s3/aws4_request`;
    const get: Sent = {
      method: "GET",
      path: "/test.txt",
      query: "",
      headers: {
        Host: host,
        Range: "bytes=0-9",
        "x-amz-content-sha256": EMPTY_SHA256,
        "x-amz-date": "20130524T000000Z",
        Authorization: `AWS4-HMAC-SHA256 Credential=${credential},SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41`,
      },
    };
    expect(check(get, EXAMPLE_UNIX_MS).payload).toEqual({ kind: "sha256", hash: EMPTY_SHA256 });

    // Signed with the Date header, and a key with a character that is to be encoded.
    const put: Sent = {
      method: "PUT",
      path: "/test$file.text",
      query: "",
      headers: {
        Host: host,
        Date: "Fri, 24 May 2013 00:00:00 GMT",
        "x-amz-date": "20130524T000000Z",
        "x-amz-storage-class": "REDUCED_REDUNDANCY",
        "x-amz-content-sha256": "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
        Authorization: `AWS4-HMAC-SHA256 Credential=${credential}, SignedHeaders=date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class, Signature=98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd`,
      },
    };
    expect(check(put, EXAMPLE_UNIX_MS).grantee.accessKey).toBe(ACCESS_KEY);

    const presigned: Sent = {
      method: "GET",
      path: "/test.txt",
      query: `X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=${encode(credential)}&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404`,
      headers: { Host: host },
    };
    expect(check(presigned, EXAMPLE_UNIX_MS).payload).toEqual({ kind: "unsigned" });
    expect(codeOf(() => check(presigned, EXAMPLE_UNIX_MS + 86_400_001))).toBe("AccessDenied");

    const chunked: Sent = {
      method: "PUT",
      path: "/examplebucket/chunkObject.txt",
      query: "",
      headers: {
        Host: "s3.amazonaws.com",
        "x-amz-date": "20130524T000000Z",
        "x-amz-storage-class": "REDUCED_REDUNDANCY",
        "x-amz-content-sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
        "Content-Encoding": "aws-chunked",
        "x-amz-decoded-content-length": "66560",
        "Content-Length": "66824",
        Authorization: `AWS4-HMAC-SHA256 Credential=${credential},SignedHeaders=content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class,Signature=4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9`,
      },
    };
    expect(check(chunked, EXAMPLE_UNIX_MS).payload).toEqual({
      kind: "chunks",
      trailer: false,
      signing: {
        signingKey: signingKey(SECRET_KEY, "20130524", "us-east-1"),
        seed: "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9",
        date: "20130524T000000Z",
        scope: "20130524/us-east-1/s3/aws4_request",
      },
    });
  });

  it("holds what an AWS SDK signs, in headers and presigned, and nothing that was changed", async () => {
    const random = randomOf(printedSeed("signed requests"));
    for (let round = 0; round < 400; round++) {
      const presign = round % 2 === 1;
      const sent = await signed(plan(random), { presign });
      expect(
        codeOf(() => check(sent)),
        JSON.stringify(sent),
      ).toBe("none");

      const what = JSON.stringify(sent);
      expect(
        codeOf(() => check({ ...sent, path: `${sent.path}x` })),
        what,
      ).toBe("SignatureDoesNotMatch");
      const query = sent.query === "" ? "x=" : `${sent.query}&x=`;
      expect(
        codeOf(() => check({ ...sent, query })),
        what,
      ).toBe("SignatureDoesNotMatch");
      expect(
        codeOf(() => check({ ...sent, method: "PATCH" })),
        what,
      ).toBe("SignatureDoesNotMatch");
      const headers = { ...sent.headers, host: "localhost:9001" };
      expect(
        codeOf(() => check({ ...sent, headers })),
        what,
      ).toBe("SignatureDoesNotMatch");
      const more = { ...sent.headers, "x-amz-copy-source": "/bucket/secret" };
      expect(
        codeOf(() => check({ ...sent, headers: more })),
        what,
      ).toBe("AccessDenied");
    }
  });

  it("does not care in which form a query writes a space", async () => {
    const sent = await signed({ ...PUT, query: { prefix: "a b" } });
    expect(check({ ...sent, query: sent.query.replace("%20", "+") }).grantee.accessKey).toBe(ACCESS_KEY);
  });

  it("hashes the bytes of a header, not its characters", async () => {
    // node:http hands UTF-8 on as one character a byte.
    const sent = await signed({ ...PUT, headers: { ...PUT.headers, "x-amz-meta-name": "à 日本" } });
    const latin1 = Buffer.from("à 日本").toString("latin1");
    expect(check({ ...sent, headers: { ...sent.headers, "x-amz-meta-name": latin1 } }).payload.kind).toBe(
      "unsigned",
    );
  });

  it("tells skew, expiry, wrong keys and wrong secrets apart", async () => {
    const sent = await signed(PUT);
    const minuteMs = 60_000;
    for (const [offsetMs, code] of [
      [15 * minuteMs, "none"],
      [-15 * minuteMs, "none"],
      [15 * minuteMs + 1, "RequestTimeTooSkewed"],
      [-15 * minuteMs - 1, "RequestTimeTooSkewed"],
    ] as const) {
      expect(codeOf(() => check(sent, NOW_UNIX_MS + offsetMs))).toBe(code);
    }
    const presigned = await signed(PUT, { presign: true, expiresIn: 7 * 86_400 });
    expect(codeOf(() => check(presigned, NOW_UNIX_MS + 7 * 86_400_000))).toBe("none");
    expect(codeOf(() => check(presigned, NOW_UNIX_MS + 7 * 86_400_000 + 1))).toBe("AccessDenied");
    expect(codeOf(() => check(presigned, NOW_UNIX_MS - 16 * minuteMs))).toBe("AccessDenied");

    const other = { accessKey: "OTHER", secretKey: SECRET_KEY };
    expect(codeOf(() => check(sent, NOW_UNIX_MS, new KeyRing({ ...other, anonymous: true })))).toBe(
      "InvalidAccessKeyId",
    );
    const wrong = await signed(PUT, { keys: { accessKey: ACCESS_KEY, secretKey: "wrong" } });
    expect(codeOf(() => check(wrong))).toBe("SignatureDoesNotMatch");
    expect(codeOf(() => check(sent))).toBe("none");
  });

  it("takes any region, and no service but s3", async () => {
    for (const region of ["us-east-1", "auto", "", "*", "x.y_z-1"]) {
      const sent = await signed(PUT, { keys: { accessKey: ACCESS_KEY, secretKey: SECRET_KEY }, region });
      expect(
        codeOf(() => check(sent)),
        region,
      ).toBe("none");
    }
    expect(codeOf(() => check({ method: "GET", path: "/", query: "", headers: {} }))).toBe("AccessDenied");
    const sts = await signed(PUT, { service: "sts" });
    expect(codeOf(() => check(sts))).toBe("AuthorizationHeaderMalformed");
    const stsPresigned = await signed(PUT, { service: "sts", presign: true });
    expect(codeOf(() => check(stsPresigned))).toBe("AuthorizationQueryParametersError");
  });

  it("reads how the payload is protected", async () => {
    const kinds: [string, unknown][] = [
      ["UNSIGNED-PAYLOAD", { kind: "unsigned" }],
      [EMPTY_SHA256, { kind: "sha256", hash: EMPTY_SHA256 }],
      ["STREAMING-UNSIGNED-PAYLOAD-TRAILER", { kind: "chunks", trailer: true, signing: null }],
      ["STREAMING-AWS4-HMAC-SHA256-PAYLOAD", { kind: "chunks", trailer: false }],
      ["STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER", { kind: "chunks", trailer: true }],
    ];
    for (const [sha256, payload] of kinds) {
      const sent = await signed({ ...PUT, headers: { "x-amz-content-sha256": sha256 } });
      expect(check(sent).payload).toMatchObject(payload as object);
    }
    for (const [sha256, code] of [
      ["STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD", "NotImplemented"],
      ["unsigned-payload", "InvalidArgument"],
      [EMPTY_SHA256.slice(1), "InvalidArgument"],
      ["", "InvalidArgument"],
    ] as const) {
      const sent = await signed({ ...PUT, headers: { "x-amz-content-sha256": sha256 } });
      expect(
        codeOf(() => check(sent)),
        sha256,
      ).toBe(code);
    }
    const { "x-amz-content-sha256": _, ...headers } = (await signed(PUT)).headers;
    expect(codeOf(() => check({ method: "PUT", path: "/bucket/key", query: "", headers }))).toBe(
      "InvalidRequest",
    );
    // Whoever holds a presigned URL may say how the body comes.
    const presigned = await signed(PUT, { presign: true });
    const query = presigned.query.replace(/&?x-amz-content-sha256=UNSIGNED-PAYLOAD/, "");
    expect(codeOf(() => check({ ...presigned, query }))).toBe("SignatureDoesNotMatch");
    expect(check(presigned).payload).toEqual({ kind: "unsigned" });
  });

  it("lets anonymous requests in only where that is switched on", () => {
    const bare: Sent = { method: "GET", path: "/bucket/key", query: "", headers: { host: "x" } };
    expect(codeOf(() => check(bare))).toBe("AccessDenied");
    expect(codeOf(() => check({ ...bare, headers: { host: "x", authorization: "" } }))).toBe("AccessDenied");
    const open = new KeyRing({ accessKey: null, secretKey: null, anonymous: true });
    expect(check(bare, NOW_UNIX_MS, open)).toMatchObject({
      grantee: { scope: null },
      payload: { kind: "unsigned" },
    });
    const streaming = { host: "x", "x-amz-content-sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" };
    expect(codeOf(() => check({ ...bare, headers: streaming }, NOW_UNIX_MS, open))).toBe("InvalidRequest");
  });

  it("names what is malformed", async () => {
    const sent = await signed(PUT);
    const authorization = sent.headers.authorization as string;
    const cases: [string, string][] = [
      ["AWS key:signature=", "InvalidRequest"],
      ["AWS HAHAHA", "InvalidArgument"],
      ["AWS4-HMAC-SHA256 Credential=HAHAHA", "AuthorizationHeaderMalformed"],
      ["AWS4-HMAC-SHA256", "AuthorizationHeaderMalformed"],
      ["AWS4-ECDSA-P256-SHA256 Credential=x", "NotImplemented"],
      ["Bearer token", "InvalidArgument"],
      [authorization.replace(/Signature=.*/, "Signature=abc"), "AuthorizationHeaderMalformed"],
      [`${authorization},Signature=${"0".repeat(64)}`, "AuthorizationHeaderMalformed"],
      [
        authorization.replace("SignedHeaders=host;", "SignedHeaders=host;host;"),
        "AuthorizationHeaderMalformed",
      ],
      [authorization.replace("SignedHeaders=host;", "SignedHeaders=Host;"), "AuthorizationHeaderMalformed"],
      [authorization.replace("SignedHeaders=host;", "SignedHeaders="), "AccessDenied"],
      [authorization.replace("/20260102/", "/20260103/"), "AuthorizationHeaderMalformed"],
      [authorization.replace("aws4_request", "aws5_request"), "AuthorizationHeaderMalformed"],
    ];
    for (const [value, code] of cases) {
      expect(
        codeOf(() => check({ ...sent, headers: { ...sent.headers, authorization: value } })),
        value,
      ).toBe(code);
    }
    for (const [date, code] of [
      ["Bad Date", "AccessDenied"],
      ["20261302T030405Z", "AccessDenied"],
      ["19500707T215304Z", "AuthorizationHeaderMalformed"],
    ] as const) {
      expect(
        codeOf(() => check({ ...sent, headers: { ...sent.headers, "x-amz-date": date } })),
        date,
      ).toBe(code);
    }
    const presigned = await signed(PUT, { presign: true });
    const both = { ...sent, query: presigned.query };
    expect(codeOf(() => check(both))).toBe("InvalidArgument");
    for (const [from, to, code] of [
      [/X-Amz-Expires=[0-9]+/, "X-Amz-Expires=604801", "AuthorizationQueryParametersError"],
      [/X-Amz-Expires=[0-9]+/, "X-Amz-Expires=-1", "AuthorizationQueryParametersError"],
      [/X-Amz-Expires=[0-9]+&?/, "", "AuthorizationQueryParametersError"],
      [/X-Amz-Algorithm=[^&]*/, "X-Amz-Algorithm=AWS4-ECDSA-P256-SHA256", "NotImplemented"],
      [/X-Amz-Date=[^&]*/, "X-Amz-Date=2026-01-02", "AuthorizationQueryParametersError"],
      [/X-Amz-Date=[^&]*/, "X-Amz-Date=%FF", "AuthorizationQueryParametersError"],
      [/$/, "&X-Amz-Date=20260102T030405Z", "AuthorizationQueryParametersError"],
    ] as const) {
      const query = presigned.query.replace(from, to);
      expect(
        codeOf(() => check({ ...presigned, query })),
        query,
      ).toBe(code);
    }
    const version2 = { ...presigned, query: "AWSAccessKeyId=x&Signature=y&Expires=1" };
    expect(codeOf(() => check(version2))).toBe("InvalidRequest");
    const twice = requestOf("PUT", sent.path, "", [
      ...Object.entries(sent.headers).flat(),
      "X-Amz-Date",
      "x",
    ]);
    expect(codeOf(() => authorize(twice, ring, NOW_UNIX_MS))).toBe("InvalidArgument");
  });

  it("takes Date where x-amz-date is not there", async () => {
    const sent = await signed(PUT);
    // @smithy signs x-amz-date; what is signed here is AWS's Signature Version 4 by hand.
    const { createHash } = await import("node:crypto");
    const canonical = `PUT\n/bucket/key\n\nhost:x\nx-amz-content-sha256:UNSIGNED-PAYLOAD\n\nhost;x-amz-content-sha256\nUNSIGNED-PAYLOAD`;
    const hash = createHash("sha256").update(canonical).digest("hex");
    const scope = "20260102/r/s3/aws4_request";
    const { hmac } = await import("../../../../../../server/doors/s3/auth/signing.js");
    const key = signingKey(SECRET_KEY, "20260102", "r");
    const signature = hmac(key, `AWS4-HMAC-SHA256\n20260102T030405Z\n${scope}\n${hash}`).toString("hex");
    const headers = {
      host: "x",
      "x-amz-content-sha256": "UNSIGNED-PAYLOAD",
      authorization: `AWS4-HMAC-SHA256 Credential=${ACCESS_KEY}/${scope}, SignedHeaders=host;x-amz-content-sha256, Signature=${signature}`,
    };
    for (const date of ["Fri, 02 Jan 2026 03:04:05 GMT", "20260102T030405Z"]) {
      expect(check({ ...sent, headers: { ...headers, date } }).payload.kind).toBe("unsigned");
    }
    expect(codeOf(() => check({ ...sent, headers: { ...headers, date: "yesterday" } }))).toBe("AccessDenied");
    expect(codeOf(() => check({ ...sent, headers }))).toBe("AccessDenied");
  });

  it("does nothing with random bytes but refuse them", () => {
    const random = randomOf(printedSeed("random authorization"));
    const words = [
      "AWS4-HMAC-SHA256 ",
      "Credential=",
      "SignedHeaders=",
      "Signature=",
      ",",
      ";",
      "/",
      "host",
      "%",
      "é",
    ];
    words.push(`${ACCESS_KEY}/20260102/r/s3/aws4_request`, "0".repeat(64), "=", "X-Amz-Algorithm", "&", "\t");
    for (let round = 0; round < 3_000; round++) {
      const junk = () => Array.from({ length: random.below(12) }, () => random.pick(words)).join("");
      const headers = { host: "x", "x-amz-date": "20260102T030405Z", authorization: junk() };
      expect(codeOf(() => check({ method: "GET", path: `/${junk()}`, query: junk(), headers }))).not.toBe(
        "none",
      );
    }
  });

  it("remembers a bounded number of signing keys, and none of another secret", () => {
    const keys = new SigningKeys();
    for (let region = 0; region < 3_000; region++) {
      keys.remember("key", "secret", "20260102", `r${region}`, Buffer.from(`${region}`));
    }
    expect(keys.size).toBe(1_024);
    expect(keys.get("key", "secret", "20260102", "r2999").toString()).toBe("2999");
    expect(keys.get("key", "other", "20260102", "r2999")).toEqual(signingKey("other", "20260102", "r2999"));
  });
});

describe("keys of a node", () => {
  const scope = { bucket: "bucket", prefix: "job-1/ü", readOnly: true, expiresUnixMs: NOW_UNIX_MS + 1_000 };

  it("issues session keys that a client signs with", async () => {
    const keys = ring.issue(scope);
    for (const presign of [false, true]) {
      const sent = await signed(PUT, { keys, presign });
      expect(check(sent).grantee).toEqual({ accessKey: keys.accessKey, secretKey: keys.secretKey, scope });
    }
    // Another process with the same configuration knows it too.
    const again = new KeyRing({
      accessKey: ACCESS_KEY,
      secretKey: SECRET_KEY,
      anonymous: false,
      nowUnixMs: () => NOW_UNIX_MS,
    });
    expect(again.find(keys.accessKey, keys.sessionToken)?.secretKey).toBe(keys.secretKey);
  });

  it("refuses tokens that were changed, mixed up, expired or of another node", () => {
    const keys = ring.issue(scope);
    const { accessKey, sessionToken } = keys;
    expect(ring.find(accessKey, null)).toBeNull();
    const other = ring.issue({ ...scope, readOnly: false });
    const [claims, proof] = sessionToken.split(".") as [string, string];
    for (const token of [
      other.sessionToken,
      `${other.sessionToken.split(".")[0]}.${proof}`,
      claims,
      `${claims}.`,
      `${sessionToken}.x`,
      "",
      "x".repeat(20_000),
    ]) {
      expect(
        codeOf(() => ring.find(accessKey, token)),
        token.slice(0, 100),
      ).toBe("InvalidToken");
    }
    expect(codeOf(() => ring.find(ACCESS_KEY, sessionToken))).toBe("InvalidToken");
    const elsewhere = new KeyRing({ accessKey: ACCESS_KEY, secretKey: "other", anonymous: false });
    expect(codeOf(() => elsewhere.find(accessKey, sessionToken))).toBe("InvalidToken");
    const expired = ring.issue({ ...scope, expiresUnixMs: NOW_UNIX_MS });
    expect(codeOf(() => ring.find(expired.accessKey, expired.sessionToken))).toBe("ExpiredToken");
  });
});
