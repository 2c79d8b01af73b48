// node check.mjs DASHBOARD: compiles it against Grafana's own types, each panel's options against those of its kind.
import { readFileSync, writeFileSync } from "node:fs";
import { spawnSync } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const dashboard = JSON.parse(readFileSync(process.argv[2], "utf8"));
const kinds = { timeseries: "timeseries/panelcfg/x/TimeSeriesPanelCfg", stat: "stat/panelcfg/x/StatPanelCfg", table: "table/panelcfg/x/TablePanelCfg" };
const lines = ['import type { Dashboard, Panel, RowPanel } from "@grafana/schema";'];
for (const [kind, path] of Object.entries(kinds)) {
  lines.push(`import type * as ${kind} from "@grafana/schema/dist/esm/raw/composable/${path}_types.gen";`);
}
// Grafana's enums are texts in JSON: `${Enum}` is the union of their texts.
lines.push("type Json<T> = T extends string | number | boolean | null | undefined ? (T extends string ? `${T}` | T : T extends number ? T | number : T) : { [K in keyof T]: Json<T[K]> };");
lines.push("type Known<T> = { [K in keyof T as string extends K ? never : K]: T[K] };");
const { panels, ...rest } = dashboard;
lines.push(`export const dashboard: Json<Omit<Dashboard, "panels">> = ${JSON.stringify(rest)};`);
panels.forEach((panel, number) => {
  if (panel.type === "row") {
    lines.push(`export const panel${number}: Json<RowPanel> = ${JSON.stringify(panel)};`);
    return;
  }
  if (!(panel.type in kinds)) throw new Error(`${panel.title}: no type is known for ${panel.type}`);
  lines.push(`export const panel${number}: Json<Panel> = ${JSON.stringify(panel)};`);
  lines.push(`export const options${number}: Json<Partial<${panel.type}.Options>> = ${JSON.stringify(panel.options)};`);
  const custom = panel.fieldConfig.defaults.custom;
  if (custom) lines.push(`export const custom${number}: Json<${panel.type}.FieldConfig> = ${JSON.stringify(custom)};`);
});
writeFileSync(join(here, "dashboard.ts"), lines.join("\n"));
const options = ["--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--moduleResolution", "nodenext", "--target", "es2022", "dashboard.ts"];
const done = spawnSync(process.execPath, [join(here, "node_modules/typescript/bin/tsc"), ...options], { cwd: here, stdio: "inherit" });
if (done.status === 0) console.log(`${panels.length} panels are as Grafana's types want them`);
process.exit(done.status ?? 1);
