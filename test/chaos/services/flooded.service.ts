import { modelOn } from "./model.ts";

/** As steady, and the one that is flooded. */
export default modelOn("steady", { name: "flooded", question: "Is it drowned?" });
