import { type ParseArgsConfig, parseArgs } from "node:util";

/** Exit code of a command that was called wrongly. */
const EXIT_USAGE = 2;

/**
 * The options a command was called with. `--help` prints what there are; an unknown or malformed one is told in one
 * line. Either ends the process.
 *
 * @param usage what `--help` prints
 */
export function commandOptions<T extends NonNullable<ParseArgsConfig["options"]>>(usage: string, options: T) {
  return commandLine(usage, options).values;
}

/**
 * The same, with the arguments that are no options.
 *
 * @param most how many of those the command takes
 */
export function commandLine<T extends NonNullable<ParseArgsConfig["options"]>>(
  usage: string,
  options: T,
  most = 0,
) {
  const allowPositionals = most > 0;
  const parsed = () =>
    parseArgs({ options: { ...options, help: { type: "boolean", short: "h" } } as T, allowPositionals });
  try {
    const { values, positionals } = parsed();
    if ((values as { help?: boolean }).help) {
      console.log(usage.trim());
      process.exit(0);
    }
    const [further] = positionals.slice(most);
    if (further !== undefined) misused(`Unexpected argument "${further}"; --help tells what there is`);
    return { values, positionals };
  } catch (error) {
    // The rest of Node's message is advice on positional arguments.
    const [what] = (error as Error).message.split(". ");
    return misused(`${what}; --help tells what there is`);
  }
}

/** Ends a command that was called wrongly. */
export function misused(message: string): never {
  console.error(message);
  process.exit(EXIT_USAGE);
}
