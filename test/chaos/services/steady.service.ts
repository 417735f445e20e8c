import { modelOn } from "./model.ts";

/** A model that takes the same time for every item. */
export default modelOn("steady", { name: "steady", question: "Is it in time?" });
