/** SQL of the bound expressions in DuckDB's plans. */

import { unsupported } from "./errors.js";
import {
  asArray,
  asIndex,
  asObject,
  asObjects,
  asString,
  isObject,
  type Json,
  type JsonObject,
} from "./json.js";
import { literal, narrowDecimal } from "./literals.js";
import { castSql, fields, info, isNameless, quoteName, quoteText, sqlType, typeId } from "./types.js";

/** SQL of the column at a position of the operator's input. */
export type Reference = (index: number) => string;

export const column: Reference = (index) => `c${index}`;

const COMPARISONS: Record<string, string> = {
  COMPARE_EQUAL: "=",
  COMPARE_NOTEQUAL: "<>",
  COMPARE_LESSTHAN: "<",
  COMPARE_GREATERTHAN: ">",
  COMPARE_LESSTHANOREQUALTO: "<=",
  COMPARE_GREATERTHANOREQUALTO: ">=",
  COMPARE_DISTINCT_FROM: "IS DISTINCT FROM",
  COMPARE_NOT_DISTINCT_FROM: "IS NOT DISTINCT FROM",
};

/** The operator of a comparison, `=` and so on. */
export function comparison(type: Json | undefined): string {
  const operator = COMPARISONS[asString(type)];
  if (operator === undefined) throw unsupported(asString(type));
  return operator;
}

/** Functions whose value is another at each call. */
const VOLATILE = new Set([
  "random",
  "uuid",
  "gen_random_uuid",
  "uuidv4",
  "uuidv7",
  "setseed",
  "shuffle",
  "sleep_ms",
]);
/** Functions that change or read what only one DuckDB has. */
const LOCAL = new Set(["nextval", "currval", "getvariable", "current_setting", "pg_typeof", "txid_current"]);
const LAMBDAS = new Set([
  "list_transform",
  "array_transform",
  "list_apply",
  "array_apply",
  "apply",
  "list_filter",
  "array_filter",
  "filter",
  "list_reduce",
  "array_reduce",
  "reduce",
]);
/** Functions that DuckDB binds with more than their arguments, where the arguments say it all nevertheless. */
const HARMLESS_DATA = new Set(["list_aggregate", "list_aggr", "array_aggregate", "array_aggr", "aggregate"]);

export function isReference(expression: JsonObject): boolean {
  return expression.expression_class === "BOUND_REF";
}

/** The position, where the expression is a plain column. */
export function columnOf(expression: JsonObject): number | null {
  return isReference(expression) ? asIndex(expression.index) : null;
}

export function isConstant(expression: JsonObject): boolean {
  return expression.expression_class === "BOUND_CONSTANT";
}

/** The type of an expression's value. */
export function typeOf(expression: JsonObject): JsonObject {
  switch (expression.expression_class) {
    case "BOUND_CONSTANT":
      return asObject(asObject(expression.value).type);
    case "BOUND_COMPARISON":
    case "BOUND_CONJUNCTION":
    case "BOUND_BETWEEN":
      return { id: "BOOLEAN" };
    default:
      return asObject(expression.return_type);
  }
}

/** Whether anything within is found by `test`. */
function contains(value: Json | undefined, test: (object: JsonObject) => boolean): boolean {
  if (Array.isArray(value)) return (value as readonly Json[]).some((item) => contains(item, test));
  if (!isObject(value)) return false;
  return test(value) || Object.values(value).some((item) => contains(item, test));
}

/** Whether evaluating it twice may give two values. */
export function isVolatile(value: Json | undefined): boolean {
  return contains(
    value,
    (object) => object.expression_class === "BOUND_FUNCTION" && VOLATILE.has(String(object.name)),
  );
}

/** Positions of the columns that the expressions read. */
export function columnsRead(value: Json | undefined, into: Set<number> = new Set()): Set<number> {
  contains(value, (object) => {
    if (isReference(object)) into.add(asIndex(object.index));
    return false;
  });
  return into;
}

const DECIMAL_ARITHMETIC = new Set(["+", "-", "*"]);

/** A decimal's cast to another one that has only more digits in front changes nothing. */
function withoutWidening(expression: JsonObject): JsonObject {
  if (expression.expression_class !== "BOUND_CAST" || !isTyped(expression, "DECIMAL")) return expression;
  const child = asObject(expression.child);
  if (!isTyped(child, "DECIMAL")) return expression;
  const [from, to] = [info(typeOf(child)), info(typeOf(expression))];
  return from.scale === to.scale && asIndex(from.width) <= asIndex(to.width) ? child : expression;
}

class Translator {
  #lambdas = 0;

  expression(e: JsonObject, refer: Reference): string {
    const sql = (value: Json | undefined): string => this.expression(asObject(value), refer);
    switch (e.expression_class) {
      case "BOUND_REF":
        return refer(asIndex(e.index));
      case "BOUND_CONSTANT":
        return literal(asObject(e.value));
      case "BOUND_COMPARISON":
        return `(${sql(e.left)} ${comparison(e.type)} ${sql(e.right)})`;
      case "BOUND_CONJUNCTION":
        return `(${asArray(e.children)
          .map(sql)
          .join(e.type === "CONJUNCTION_OR" ? " OR " : " AND ")})`;
      case "BOUND_CAST":
        return this.#cast(e, sql(e.child));
      case "BOUND_CASE": {
        const checks = asObjects(e.case_checks).map(
          (check) => `WHEN ${sql(check.when_expr)} THEN ${sql(check.then_expr)}`,
        );
        return `(CASE ${checks.join(" ")} ELSE ${sql(e.else_expr)} END)`;
      }
      case "BOUND_BETWEEN": {
        const lower = e.lower_inclusive === true ? ">=" : ">";
        const upper = e.upper_inclusive === true ? "<=" : "<";
        return `(${sql(e.input)} ${lower} ${sql(e.lower)} AND ${sql(e.input)} ${upper} ${sql(e.upper)})`;
      }
      case "BOUND_OPERATOR":
        return this.#operator(e, asArray(e.children).map(sql));
      case "BOUND_FUNCTION":
        return this.#function(e, refer);
      default:
        throw unsupported(`an expression of class ${String(e.expression_class)}`);
    }
  }

  #cast(e: JsonObject, child: string): string {
    const type = asObject(e.return_type);
    if (isNameless(type)) throw unsupported("a cast to a struct without names");
    return `${e.try_cast === true ? "TRY_CAST" : "CAST"}(${child} AS ${sqlType(type)})`;
  }

  #operator(e: JsonObject, children: string[]): string {
    const [first, ...rest] = children;
    switch (e.type) {
      case "OPERATOR_IS_NULL":
        return `(${first} IS NULL)`;
      case "OPERATOR_IS_NOT_NULL":
        return `(${first} IS NOT NULL)`;
      case "OPERATOR_NOT":
        return `(NOT ${first})`;
      case "COMPARE_IN":
        return `(${first} IN (${rest.join(", ")}))`;
      case "COMPARE_NOT_IN":
        return `(${first} NOT IN (${rest.join(", ")}))`;
      case "OPERATOR_COALESCE":
        return `COALESCE(${children.join(", ")})`;
      case "OPERATOR_NULLIF":
        return `NULLIF(${children.join(", ")})`;
      case "OPERATOR_TRY":
        return `TRY(${first})`;
      default:
        throw unsupported(String(e.type));
    }
  }

  #function(e: JsonObject, refer: Reference): string {
    const name = asString(e.name);
    if (DECIMAL_ARITHMETIC.has(name) && isTyped(e, "DECIMAL")) return this.#decimal(e, name, refer);
    if (LOCAL.has(name))
      throw unsupported(`the function ${name}`, "its value depends on where it is evaluated");
    if (LAMBDAS.has(name)) return this.#lambda(e, name, refer);
    const operands = asObjects(e.children);
    const args = operands.map((child) => this.expression(child, refer));
    const call = `${quoteName(name)}(${args.join(", ")})`;
    switch (name) {
      case "struct_pack":
      case "struct_insert":
      case "union_value":
        return this.#named(e, name, args);
      case "struct_extract":
      case "struct_extract_at":
      case "array_extract":
        return call;
      case "date_part":
      case "datepart":
        // A list of parts became data of the function, and a struct its value.
        if (isObject(e.function_data) && e.function_data.part_codes !== undefined) {
          const parts = asArray(e.function_data.part_codes).map((part) =>
            quoteText(asString(part).toLowerCase()),
          );
          return `date_part([${parts.join(", ")}], ${args.at(-1)})`;
        }
        return call;
      case "!__postfix":
        return `factorial(${args.join(", ")})`;
      default:
        break;
    }
    if (isObject(e.function_data) && !this.#plain(name, e.function_data)) {
      throw unsupported(`the function ${name}`, "the plan does not say all that it was bound with");
    }
    return call;
  }

  /**
   * Arithmetic of decimals. DuckDB has cast the operands to the width of the result; bound anew, wider operands would
   * make a still wider result, and 128 bits are slow. So the operands are as narrow as they can be, and the result is
   * told its type.
   */
  #decimal(e: JsonObject, name: string, refer: Reference): string {
    const operands = asObjects(e.children).map((child) => {
      const constant = isConstant(child) ? narrowDecimal(asObject(child.value)) : null;
      return constant ?? this.expression(withoutWidening(child), refer);
    });
    return castSql(`${quoteName(name)}(${operands.join(", ")})`, asObject(e.return_type));
  }

  /** Whether the arguments alone make the call. */
  #plain(name: string, data: JsonObject): boolean {
    if (HARMLESS_DATA.has(name)) return true;
    return Object.keys(data).every((key) => key === "variable_return_type");
  }

  /** Functions whose arguments have names, which only their type has kept. */
  #named(e: JsonObject, name: string, args: string[]): string {
    const all = fields(asObject(e.return_type));
    const first = name === "struct_insert" ? 1 : 0;
    // Members of the struct that is added to come first.
    const names = name === "struct_insert" ? all.slice(all.length - (args.length - 1)) : all;
    const parts = args.map((arg, at) =>
      at < first ? arg : `${quoteName(names[at - first]?.name ?? "")} := ${arg}`,
    );
    if (name === "struct_pack" && names.some((field) => field.name === "")) return `row(${args.join(", ")})`;
    const call = `${name}(${parts.join(", ")})`;
    return name === "union_value" ? castSql(call, asObject(e.return_type)) : call;
  }

  /** The lambda's parameters come first in its references, the last of them as 0; what it captured follows. */
  #lambda(e: JsonObject, name: string, refer: Reference): string {
    const data = asObject(e.function_data);
    if (!isObject(data.lambda_expr)) throw unsupported(`the function ${name}`, "the plan lacks its lambda");
    const reduces = name.endsWith("reduce");
    const parameters = (reduces ? 2 : 1) + (data.has_index === true ? 1 : 0);
    const operands = asObjects(e.children);
    const own = reduces && data.has_initial === true ? 2 : 1;
    const captured = operands.slice(own).map((child) => this.expression(child, refer));
    const id = this.#lambdas++;
    const names = Array.from({ length: parameters }, (_, at) => `p${id}_${at}`);
    const body = this.expression(data.lambda_expr, (index) => {
      if (index < parameters) return names[parameters - 1 - index]!;
      const capture = captured[index - parameters];
      if (capture === undefined)
        throw unsupported(`the function ${name}`, "its lambda reads what it did not capture");
      return capture;
    });
    const args = operands.slice(0, own).map((child) => this.expression(child, refer));
    const lambda = `lambda ${names.join(", ")}: ${body}`;
    const initial = args[1] === undefined ? "" : `, ${args[1]}`;
    return `${quoteName(name)}(${args[0]}, ${lambda}${initial})`;
  }
}

/** SQL of an expression over the columns that `refer` names: c0, c1, … unless told. */
export function expression(value: Json | undefined, refer: Reference = column): string {
  return new Translator().expression(asObject(value), refer);
}

export interface Order {
  expression: JsonObject;
  descending: boolean;
  nullsFirst: boolean;
}

export function orders(value: Json | undefined): Order[] {
  return asObjects(value).map((order) => ({
    expression: asObject(order.expression),
    descending: asString(order.type) === "DESCENDING",
    nullsFirst: asString(order.null_order) === "NULLS FIRST",
  }));
}

export function orderSql(order: { descending: boolean; nullsFirst: boolean }, key: string): string {
  return `${key} ${order.descending ? "DESC" : "ASC"} NULLS ${order.nullsFirst ? "FIRST" : "LAST"}`;
}

/** DuckDB refuses literals as keys, where they say nothing; those that the optimizer has made must not be refused. */
function orderKey(key: JsonObject, refer: Reference): string {
  const sql = expression(key, refer);
  return key.expression_class === "BOUND_CONSTANT" ? castSql(sql, typeOf(key)) : sql;
}

export function orderList(list: readonly Order[], refer: Reference = column): string {
  return list.map((order) => orderSql(order, orderKey(order.expression, refer))).join(", ");
}

export function isTyped(expression: JsonObject, id: string): boolean {
  return typeId(typeOf(expression)) === id;
}
