import type { Dashboard, DashboardLink, Panel as GraphPanel, RowPanel, VariableModel } from "@grafana/schema";

/** What of Grafana's dashboard format is used here (schema 39, Grafana 10 and later). */
const SCHEMA = 39;
const COLUMNS = 24;
const PANELS_A_ROW = 3;
const WIDTH = COLUMNS / PANELS_A_ROW;
const HEIGHT = 8;
const TEXT_HEIGHT = 2;
/** From each board to the others. */
const LINK: DashboardLink = {
  type: "dashboards",
  title: "DL-Lambda",
  tags: ["dl-lambda"],
  icon: "external link",
  tooltip: "",
  asDropdown: true,
  includeVars: false,
  keepTime: true,
  targetBlank: false,
};
const DATASOURCE = { type: "prometheus", uid: "$datasource" };

export interface Query {
  /** PromQL; `$service` and its like are the board's variables. */
  readonly expr: string;
  readonly legend: string;
}

export type Panel = Placeable<GraphPanel> | Placeable<RowPanel>;
/** Before it has its place. */
type Placeable<P> = Omit<P, "id" | "gridPos">;

interface Variable {
  readonly name: string;
  readonly query: string;
}

export type Board = Dashboard & { readonly uid: string; readonly panels: readonly Panel[] };

export function row(title: string): Panel {
  return { type: "row", title, collapsed: false, panels: [] };
}

export function text(content: string): Panel {
  return { type: "text", title: "", options: { mode: "markdown", content } };
}

/** A graph over time. */
export function panel(title: string, unit: string, queries: readonly Query[], description = ""): Panel {
  return {
    type: "timeseries",
    title,
    description,
    datasource: DATASOURCE,
    fieldConfig: {
      defaults: { unit, min: 0, custom: { fillOpacity: 10, showPoints: "never" } },
      overrides: [],
    },
    options: {
      legend: { displayMode: "list", placement: "bottom" },
      tooltip: { mode: "multi", sort: "desc" },
    },
    targets: queries.map(({ expr, legend }, index) => ({
      refId: String.fromCharCode(65 + index),
      datasource: DATASOURCE,
      expr,
      legendFormat: legend,
    })),
  };
}

/** A board whose panels stand in rows of three. */
export function board(
  uid: string,
  title: string,
  variables: readonly Variable[],
  panels: readonly Panel[],
): Board {
  return {
    uid,
    title,
    tags: ["dl-lambda"],
    editable: false,
    schemaVersion: SCHEMA,
    refresh: "10s",
    time: { from: "now-1h", to: "now" },
    timezone: "",
    links: [LINK],
    templating: {
      list: [
        { name: "datasource", type: "datasource", query: "prometheus", hide: 0 },
        ...variables.map(
          ({ name, query }): VariableModel => ({
            name,
            type: "query",
            datasource: DATASOURCE,
            query: { query, refId: name },
            refresh: 2,
            sort: 1,
            multi: true,
            includeAll: true,
            allValue: ".*",
            current: { text: "All", value: "$__all" },
          }),
        ),
      ],
    },
    panels: laidOut(panels),
  };
}

function laidOut(panels: readonly Panel[]): Panel[] {
  let x = 0;
  let y = 0;
  return panels.map((each, index) => {
    const wide = each.type !== "timeseries";
    const height = each.type === "row" ? 1 : each.type === "text" ? TEXT_HEIGHT : HEIGHT;
    if (wide || x + WIDTH > COLUMNS) {
      if (x > 0) y += HEIGHT;
      x = 0;
    }
    const gridPos = { x, y, w: wide ? COLUMNS : WIDTH, h: height };
    if (wide) y += height;
    else x += WIDTH;
    return { id: index + 1, ...each, gridPos };
  });
}
