/** `export.json`: what `export.py` tells about the run. */
export interface Export {
  /** Epochs trained. */
  readonly epoch: number;
  readonly seed: number;
  /** `[epochs, side in pixels]` in their order. */
  readonly schedule: readonly (readonly [number, number])[];
  /** Side of the photos that the network sees in service, pixels. */
  readonly side: number;
  /** In the order of the outputs. */
  readonly labels: readonly string[];
  readonly parameters: number;
  /** Photos the activations' ranges were measured on. */
  readonly calibration: number;
  /** What the logits were scaled by, so that probabilities mean what they say. */
  readonly sharpening: number;
  /** Photos by "source/class", training and held-out. */
  readonly photos: Readonly<Record<string, number>>;
  /** `label` is an index of the labels. */
  readonly heldOut: readonly { readonly file: string; readonly label: number; readonly source: string }[];
}

/** Shares of right answers, 0–1. */
export interface Scores {
  /** The most probable of the three labels is the right one. */
  readonly threeWay: number;
  /** The answer to the question is right: yes from the services' threshold on. */
  readonly cat: number;
  readonly dog: number;
  /** The same, had the answer been yes whenever the label is the most probable. */
  readonly catByLabel: number;
  readonly dogByLabel: number;
}

/** `evaluation.json`: what `evaluate.ts` measured. */
export interface Evaluation {
  readonly float32: Scores;
  readonly int8: Scores;
  /** Share of photos for which both graphs find the same label the most probable. */
  readonly agreement: number;
  /** Expected calibration error of the int8 graph: how far its probabilities are from the share it is right, 0–1. */
  readonly calibrationError: number;
  /** Of the int8 graph: `[right label][most probable label]`, photos. */
  readonly confusion: readonly (readonly number[])[];
}
