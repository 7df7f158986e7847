import { expect, it } from "vitest";
import { allowed } from "../../../../../../server/doors/s3/auth/credentials.js";

const grantee = (readOnly: boolean) => ({
  accessKey: "MSTSX",
  secretKey: "secret",
  scope: { bucket: "bucket", prefix: "job/", readOnly, expiresUnixMs: 1_000 },
});

it("a session key is good for the keys under its prefix and no others", () => {
  const can = (
    readOnly: boolean,
    bucket: string | null,
    key: string | null,
    write: boolean,
    nowUnixMs = 0,
  ) => {
    try {
      allowed(grantee(readOnly), bucket, key, write, nowUnixMs);
      return true;
    } catch {
      return false;
    }
  };
  expect(can(false, "bucket", "job/x", true)).toBe(true);
  expect(can(true, "bucket", "job/x", true)).toBe(false);
  expect(can(true, "bucket", "job/", false)).toBe(true);
  expect(can(false, "bucket", "job", false)).toBe(false);
  expect(can(false, "bucket", "", false)).toBe(false);
  expect(can(false, "bucket", "jobs/x", false)).toBe(false);
  expect(can(false, "other", "job/x", false)).toBe(false);
  // The bucket itself: it may be looked for, but not be changed.
  expect(can(false, "bucket", null, false)).toBe(true);
  expect(can(false, "bucket", null, true)).toBe(false);
  expect(can(false, null, null, false)).toBe(false);
  expect(can(false, "bucket", "job/x", false, 1_000)).toBe(false);
  expect(() => allowed({ accessKey: "k", secretKey: "s", scope: null }, null, null, true, 0)).not.toThrow();
});
