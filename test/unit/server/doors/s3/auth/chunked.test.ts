import { describe, expect, it } from "vitest";
import type { ChunkSigning } from "../../../../../../server/doors/s3/auth/authorization.js";
import { ChunkDecoder, type ChunkedForm } from "../../../../../../server/doors/s3/auth/chunked.js";
import { signingKey } from "../../../../../../server/doors/s3/auth/signing.js";
import { S3Error } from "../../../../../../server/doors/s3/errors.js";
import { printedSeed, type Random, randomOf } from "../../../../../support/random.js";
import { encodeChunks } from "../requests.js";

/** Of AWS's published examples. */
const EXAMPLE: Omit<ChunkSigning, "seed"> = {
  signingKey: signingKey("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "20130524", "us-east-1"),
  date: "20130524T000000Z",
  scope: "20130524/us-east-1/s3/aws4_request",
};
const SIGNING: ChunkSigning = { ...EXAMPLE, seed: "0".repeat(64) };
const TRAILER = "x-amz-checksum-crc32c";

interface Decoded {
  payload: string;
  trailers: [string, string][];
}

/** `cuts`: where the stream is cut into pushes. Fails with anything but an S3Error where the decoder does. */
function decode(stream: Buffer, form: ChunkedForm, cuts: number[] = []): Decoded | S3Error {
  const decoder = new ChunkDecoder(form);
  const payload: Buffer[] = [];
  try {
    let start = 0;
    for (const end of [...cuts, stream.length]) {
      const pushed = stream.subarray(start, end);
      for (const slice of decoder.push(pushed)) {
        // A view, no copy.
        expect(slice.buffer).toBe(pushed.buffer);
        payload.push(slice);
      }
      start = end;
    }
    decoder.end();
  } catch (thrown) {
    if (thrown instanceof S3Error) return thrown;
    throw thrown;
  }
  return { payload: Buffer.concat(payload).toString("base64"), trailers: [...decoder.trailers] };
}

function codeOf(stream: Buffer | string, form: ChunkedForm): string {
  const decoded = decode(Buffer.from(stream as string, "latin1"), form);
  return decoded instanceof S3Error ? decoded.code : "none";
}

function form(signed: boolean, trailer: boolean, sizeBytes: number | null = null): ChunkedForm {
  return { signing: signed ? SIGNING : null, trailers: trailer ? [TRAILER] : null, sizeBytes };
}

function sample(random: Random, signed: boolean, trailer: boolean): { stream: Buffer; payload: string } {
  const pieces = Array.from({ length: random.below(4) }, () =>
    Buffer.from(
      Array.from({ length: 1 + random.below(40) }, () => random.pick([13, 10, 48, 59, random.below(256)])),
    ),
  );
  const stream = encodeChunks(pieces, signed ? SIGNING : null, trailer ? { [TRAILER]: "sOO8/Q==" } : null);
  return { stream, payload: Buffer.concat(pieces).toString("base64") };
}

const FORMS = [
  [false, false],
  [false, true],
  [true, false],
  [true, true],
] as const;

describe("aws-chunked", () => {
  const payload = Buffer.alloc(66_560, "a");
  const chunk = (signature: string, start: number, end: number) =>
    Buffer.concat([
      Buffer.from(`${(end - start).toString(16)};chunk-signature=${signature}\r\n`),
      payload.subarray(start, end),
      Buffer.from(end > start ? "\r\n" : ""),
    ]);

  it("holds AWS's published chunked upload", () => {
    const signing = { ...EXAMPLE, seed: "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9" };
    const stream = Buffer.concat([
      chunk("ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648", 0, 65_536),
      chunk("0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497", 65_536, 66_560),
      chunk("b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9", 66_560, 66_560),
      Buffer.from("\r\n"),
    ]);
    expect(stream.length).toBe(66_824);
    expect(decode(stream, { signing, trailers: null, sizeBytes: 66_560 })).toEqual({
      payload: payload.toString("base64"),
      trailers: [],
    });
  });

  it("holds AWS's published chunked upload with a trailer", () => {
    const signing = { ...EXAMPLE, seed: "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e" };
    const stream = (signature: string) =>
      Buffer.concat([
        chunk("b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2", 0, 65_536),
        chunk("1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7", 65_536, 66_560),
        chunk("2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992", 66_560, 66_560),
        Buffer.from(`${TRAILER}:sOO8/Q==\r\nx-amz-trailer-signature:${signature}\r\n\r\n`),
      ]);
    const signature = "d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435";
    expect(decode(stream(signature), { signing, trailers: [TRAILER], sizeBytes: 66_560 })).toEqual({
      payload: payload.toString("base64"),
      trailers: [[TRAILER, "sOO8/Q=="]],
    });
    const wrong = decode(stream("0".repeat(64)), { signing, trailers: [TRAILER], sizeBytes: 66_560 });
    expect((wrong as S3Error).code).toBe("SignatureDoesNotMatch");
  });

  it("decodes the same wherever the stream is cut", () => {
    const random = randomOf(printedSeed("cuts of chunked streams"));
    for (let round = 0; round < 400; round++) {
      const [signed, trailer] = FORMS[round % 4] as (typeof FORMS)[number];
      const { stream, payload } = sample(random, signed, trailer);
      const expected = { payload, trailers: trailer ? [[TRAILER, "sOO8/Q=="]] : [] };
      const cuts = Array.from({ length: random.below(12) }, () => random.below(stream.length)).sort(
        (a, b) => a - b,
      );
      expect(decode(stream, form(signed, trailer), cuts)).toEqual(expected);
      const everywhere = Array.from(stream, (_, at) => at);
      expect(decode(stream, form(signed, trailer), everywhere)).toEqual(expected);
      // And none that was cut off is taken for a whole one.
      const short = stream.subarray(0, random.below(stream.length));
      expect((decode(short, form(signed, trailer)) as S3Error).code).toBe("IncompleteBody");
    }
  });

  it("refuses a signed stream of which any byte was changed", () => {
    const random = randomOf(printedSeed("changed chunked streams"));
    for (let round = 0; round < 12; round++) {
      const trailer = round % 2 === 1;
      const { stream, payload } = sample(random, true, trailer);
      for (let at = 0; at < stream.length; at++) {
        const changed = Buffer.from(stream);
        changed[at] = (changed[at] as number) ^ (1 + random.below(255));
        const decoded = decode(changed, form(true, trailer));
        // Digits of a size and names of trailers may be in either case, lines of trailers may end in LF alone: that
        // changes nothing.
        const meaning = (bytes: Buffer) => bytes.toString("latin1").toLowerCase().replaceAll("\r", "\n");
        const same = meaning(changed) === meaning(stream);
        if (same && !(decoded instanceof S3Error)) expect(decoded.payload).toBe(payload);
        else expect(decoded, `byte ${at} of ${stream.toString("latin1")}`).toBeInstanceOf(S3Error);
      }
    }
  });

  it("refuses signed chunks that were swapped, left out or sent twice", () => {
    const pieces = [Buffer.from("one"), Buffer.from("two")];
    const stream = encodeChunks(pieces, SIGNING, null);
    const bytes = 1 + ";chunk-signature=".length + 64 + 2 + 3 + 2;
    const [one, two, rest] = [
      stream.subarray(0, bytes),
      stream.subarray(bytes, 2 * bytes),
      stream.subarray(2 * bytes),
    ];
    expect(codeOf(Buffer.concat([one, two, rest]), form(true, false))).toBe("none");
    for (const parts of [[two, one, rest], [one, rest], [one, one, two, rest], [rest]]) {
      expect(codeOf(Buffer.concat(parts), form(true, false))).toBe("SignatureDoesNotMatch");
    }
    expect(codeOf(encodeChunks(pieces, null, null), form(true, false))).toBe("InvalidRequest");
  });

  it("does nothing with random bytes but fail", () => {
    const random = randomOf(printedSeed("random chunked streams"));
    const words = [
      "0",
      "1",
      "f",
      "\r\n",
      "\n",
      ";chunk-signature=",
      "0".repeat(64),
      `${TRAILER}:`,
      ":",
      "x",
      "\xff",
      "",
    ];
    for (let round = 0; round < 20_000; round++) {
      const [signed, trailer] = FORMS[round % 4] as (typeof FORMS)[number];
      const text = Array.from({ length: random.below(16) }, () => random.pick(words)).join("");
      const decoded = decode(Buffer.from(text, "latin1"), form(signed, trailer));
      // A stream of bare chunks can come about by chance; a signed one cannot.
      if (signed) expect(decoded, text).toBeInstanceOf(S3Error);
    }
  });

  it("checks sizes, syntax and bounds", () => {
    const bare = form(false, false);
    const trailer = form(false, true);
    const cases: [string, ChunkedForm, string][] = [
      ["3\r\nabc\r\n0\r\n\r\n", bare, "none"],
      ["00000000000000A\r\n0123456789\r\n0\r\n\r\n", bare, "none"],
      [`3;chunk-signature=${"0".repeat(64)}\r\nabc\r\n0\r\n\r\n`, bare, "none"],
      ["0\r\n\r\n", bare, "none"],
      ["", bare, "IncompleteBody"],
      ["0\r\n", bare, "IncompleteBody"],
      ["0\r\n\r\n\r\n", bare, "InvalidRequest"],
      ["0\r\n\r\nx", bare, "InvalidRequest"],
      ["3\r\nabcd\r\n0\r\n\r\n", bare, "InvalidRequest"],
      ["3\nabc\r\n0\r\n\r\n", bare, "InvalidRequest"],
      ["3;name=value\r\nabc\r\n0\r\n\r\n", bare, "InvalidRequest"],
      ["-1\r\n\r\n", bare, "InvalidRequest"],
      ["0x3\r\nabc\r\n", bare, "InvalidRequest"],
      [" 3\r\nabc\r\n", bare, "InvalidRequest"],
      ["\r\n", bare, "InvalidRequest"],
      ["ffffffffffffffff\r\n", bare, "InvalidRequest"],
      ["20000000000000\r\n", bare, "InvalidRequest"],
      ["00000000000000003\r\nabc\r\n0\r\n\r\n", bare, "InvalidRequest"],
      ["0".repeat(1_000), bare, "InvalidRequest"],
      ["3\r\nabc\r\n0\r\n\r\n", form(false, false, 3), "none"],
      ["3\r\nabc\r\n0\r\n\r\n", form(false, false, 4), "IncompleteBody"],
      ["3\r\nabc\r\n0\r\n\r\n", form(false, false, 2), "IncompleteBody"],
      [`0\r\n${TRAILER}:x\r\n\r\n`, bare, "InvalidRequest"],
      [`0\r\n${TRAILER}:x\r\n\r\n`, trailer, "none"],
      // As some clients write it.
      [`0\r\n${TRAILER.toUpperCase()}:x\n\r\n\r\n`, trailer, "none"],
      [`0\r\n\r\n${TRAILER}:x\r\n\r\n`, trailer, "none"],
      [`0\r\n${TRAILER}:x\r\n`, trailer, "IncompleteBody"],
      [`0\r\n${TRAILER}:x\r\n\r\n\r`, trailer, "IncompleteBody"],
      [`0\r\n${TRAILER}:x\r\n\r\n\r\n\r\n`, trailer, "InvalidRequest"],
      ["0\r\n\r\n", trailer, "IncompleteBody"],
      [`0\r\n${"\r\n".repeat(20)}`, trailer, "InvalidRequest"],
      [`0\r\n${TRAILER}:x\r\n${TRAILER}:x\r\n\r\n`, trailer, "InvalidRequest"],
      ["0\r\nx-amz-other:x\r\n\r\n", trailer, "InvalidRequest"],
      ["0\r\nnonsense\r\n\r\n", trailer, "InvalidRequest"],
      [`0\r\nx-amz-trailer-signature:${"0".repeat(64)}\r\n\r\n`, trailer, "InvalidRequest"],
      [`0\r\n${TRAILER}:${"x".repeat(2_000)}`, trailer, "InvalidRequest"],
    ];
    for (const [stream, how, code] of cases) expect(codeOf(stream, how), stream.slice(0, 100)).toBe(code);
  });
});
