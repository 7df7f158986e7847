export { MillraceError } from "../proto/errors.js";
