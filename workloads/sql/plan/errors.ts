import { MillraceError } from "../../../client/errors.js";

/** UNSUPPORTED_OPERATOR: `what` names the operator or function as DuckDB calls it. */
export function unsupported(what: string, why?: string): MillraceError {
  const reason = why === undefined ? "" : `: ${why}`;
  return new MillraceError(
    "UNSUPPORTED_OPERATOR",
    `${what} cannot be distributed${reason}; run the query with --single, or write it without`,
  );
}
