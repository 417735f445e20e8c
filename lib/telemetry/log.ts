import { inspect, styleText } from "node:util";

/** What Moleculer says of a logger: the node, its namespace, and the module or service that logs. */
export interface LogBindings {
  readonly nodeID: string;
  readonly ns: string;
  readonly mod: string;
}

/**
 * A log entry as one line of JSON, for Moleculer's `formatter`: the message under `msg`, the values logged with it as
 * fields of their own, an error under `error`. A field never takes the place of `time`, `level`, `msg`, `nodeID`, `ns`
 * or `mod`: it is then written with a `_` behind its name.
 */
export function jsonLine(level: string, args: readonly unknown[], bindings: LogBindings): [string] {
  const words: string[] = [];
  const fields: Record<string, unknown> = {};
  const { nodeID, ns, mod } = bindings;
  const line: Record<string, unknown> = {
    time: new Date().toISOString(),
    level,
    msg: "",
    nodeID,
    ns,
    mod,
  };
  for (const arg of args) {
    if (arg instanceof Error) {
      fields["error"] = arg;
      // An error that is logged alone says what happened itself.
      if (args.length === 1) words.push(arg.message);
    } else if (typeof arg === "object" && arg !== null && !Array.isArray(arg)) Object.assign(fields, arg);
    else words.push(typeof arg === "string" ? arg : inspect(arg));
  }
  line["msg"] = words.join(" ");
  for (const [name, value] of Object.entries(fields)) line[name in line ? `${name}_` : name] = value;
  return [stringify(line).replace(UNSAFE, codeOf)];
}

const COLOURS = {
  fatal: ["red", "inverse"],
  error: ["red"],
  warn: ["yellow"],
  info: ["green"],
  debug: ["magenta"],
  trace: ["gray"],
} as const;

/**
 * A log entry for people, for Moleculer's `formatter`: time, level, module, message, and the values logged with it. What
 * others chose (names of services, texts of errors, what clients sent) can forge no line and move no cursor.
 */
export function textLine(level: string, args: readonly unknown[], { mod }: LogBindings): [string] {
  const colours = COLOURS[level as keyof typeof COLOURS] ?? COLOURS.info;
  const said = args.map((arg) =>
    typeof arg === "string"
      ? escaped(arg)
      : escaped(inspect(arg, { depth: 2, breakLength: Number.POSITIVE_INFINITY }), "\n    "),
  );
  return [
    [
      styleText("gray", `[${new Date().toISOString().slice(11)}]`),
      styleText([...colours], level.toUpperCase().padEnd(5)),
      `${styleText("gray", escaped(mod.toUpperCase()))}${styleText("gray", ":")}`,
      ...said,
    ].join(" "),
  ];
}

/** Control characters, the C1 set and what some take for line breaks included, and marks that reorder a line. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const UNSAFE = /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g;

/** @param lineBreak what stands for a line break: in a stack, one whose next line can be no entry */
function escaped(text: string, lineBreak = "\\n"): string {
  return text.replace(UNSAFE, (character) => (character === "\n" ? lineBreak : codeOf(character)));
}

function codeOf(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
}

function stringify(line: Readonly<Record<string, unknown>>): string {
  try {
    return JSON.stringify(line, plain);
  } catch {
    // A value that refers to itself, or whose own toJSON fails: better as text than not at all.
    return JSON.stringify(
      Object.fromEntries(
        Object.entries(line).map(([name, value]) => [
          name,
          typeof value === "object" ? inspect(value, { depth: 1 }) : value,
        ]),
      ),
      plain,
    );
  }
}

/** What JSON has no form for. */
function plain(_name: string, value: unknown): unknown {
  if (value instanceof Error) {
    const { name, message, stack } = value;
    const { type, code, cause } = value as { type?: unknown; code?: unknown; cause?: unknown };
    return { name, message, type, code, stack, cause };
  }
  if (typeof value === "bigint") return String(value);
  if (value instanceof Map || value instanceof Set) return [...value];
  if (ArrayBuffer.isView(value)) return `${value.byteLength} bytes`;
  return value;
}
