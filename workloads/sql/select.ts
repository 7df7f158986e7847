/** Whether a text is what the command runs: one SELECT. */
import { MillraceError } from "../../client/errors.js";
import { openEngine, queryTexts, quoteText } from "./duckdb.js";

/**
 * Checks a text without knowing its tables. SQL_FAILED with DuckDB's words where it is no SQL; INVALID_ARGUMENT where
 * it is no statement, several, or one that is no SELECT.
 */
export async function checkSelect(sql: string): Promise<void> {
  const engine = openEngine({ threads: 1 });
  try {
    const [row] = await queryTexts(engine, `SELECT CAST(json_serialize_sql(${quoteText(sql)}) AS VARCHAR)`);
    const parsed = JSON.parse(row?.[0] ?? "") as {
      error: boolean;
      error_type?: string;
      error_message?: string;
      position?: string;
      statements?: unknown[];
    };
    if (parsed.error) throw refusal(sql, parsed.error_type, parsed.error_message ?? "", parsed.position);
    const count = parsed.statements?.length ?? 0;
    if (count !== 1) {
      throw new MillraceError(
        "INVALID_ARGUMENT",
        count === 0
          ? "there is no statement in the SQL"
          : `the SQL has ${count} statements: run one SELECT at a time`,
      );
    }
  } finally {
    await engine.close();
  }
}

function refusal(sql: string, type = "", message: string, position?: string): MillraceError {
  if (type === "not implemented") {
    return new MillraceError(
      "INVALID_ARGUMENT",
      "only a SELECT can be run (it may begin with WITH, FROM or VALUES): tables are read as they are, and what a " +
        "query gives goes to --output",
    );
  }
  const at = Number(position);
  const where = position === undefined || !Number.isSafeInteger(at) ? "" : `, line ${lineOf(sql, at)}`;
  return new MillraceError("SQL_FAILED", `${message}${where}`);
}

/** `position` is in bytes of UTF-8. */
function lineOf(sql: string, position: number): number {
  return Buffer.from(sql).subarray(0, position).toString("utf8").split("\n").length;
}
