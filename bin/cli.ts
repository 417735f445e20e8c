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
  const parsed = () => parseArgs({ options: { ...options, help: { type: "boolean", short: "h" } } as T });
  try {
    const { values } = parsed();
    if (!(values as { help?: boolean }).help) return values;
    console.log(usage.trim());
    process.exit(0);
  } catch (error) {
    // The rest of Node's message is advice on positional arguments, which no command has.
    const [what] = (error as Error).message.split(". ");
    return misused(`${what}; --help tells what there is`);
  }
}

/** Ends a command that was called wrongly. */
export function misused(message: string): never {
  console.error(message);
  process.exit(EXIT_USAGE);
}
