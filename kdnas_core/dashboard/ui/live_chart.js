// Draws a Plotly figure in place, so that zoom and hidden traces stay while its data change.
//
// A zoom is kept here while the chart is on the page, and told to the page for its address. A zoom that comes
// back from the page is applied only if it is not one that was told, as after the back button.

const LIBRARY = "/plotly.min.js?v=PLOTLY_VERSION";
const DIGITS = 5; // of a zoom, as in the address

const PAGE_ICON = {
  width: 24,
  height: 24,
  path: "M8 5 2 12l6 7 1.5-1.3L4.6 12l4.9-5.7L8 5Zm8 0-1.5 1.3 4.9 5.7-4.9 5.7L16 19l6-7-6-7Z",
};

let loading;

function plotly() {
  loading ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = LIBRARY;
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => {
      loading = undefined; // the next drawing tries again
      reject(new Error(`${LIBRARY} was not served`));
    };
    document.head.append(script);
  });
  return loading;
}

export default function ({ data, parentElement, setStateValue, setTriggerValue }) {
  const chart = parentElement.querySelector(".live-chart");
  const given = chart.given;
  chart.given = { ...data, figure: JSON.parse(data.figure) };
  chart.tell = setStateValue;
  chart.trigger = setTriggerValue;
  chart.told ??= [];
  if (given?.view !== data.view) {
    chart.zoom = data.zoom;
    chart.told = [];
  } else if (JSON.stringify(given.zoom) !== JSON.stringify(data.zoom)) {
    const place = chart.told.indexOf(JSON.stringify(data.zoom));
    if (place < 0) chart.zoom = data.zoom;
    else chart.told.splice(0, place + 1);
  }
  chart.setAttribute("role", "figure");
  chart.setAttribute("aria-label", data.alt);
  chart.style.height = `${chart.given.figure.layout.height}px`;
  plotly().then(
    (Plotly) => draw(Plotly, chart),
    (error) => (chart.textContent = `The chart cannot be drawn: ${error.message}. Reload the page.`),
  );
}

function draw(Plotly, chart) {
  if (!chart.isConnected) return;
  const { figure, view } = chart.given;
  if (!chart.listens) chart.textContent = "";
  Plotly.react(chart, figure.data, layoutOf(chart, figure.layout, view), {
    displaylogo: false,
    doubleClick: false,
    responsive: true,
    toImageButtonOptions: { filename: chart.given.name, scale: 2 },
    modeBarButtonsToRemove: ["lasso2d", "autoScale2d", "resetScale2d"],
    modeBarButtonsToAdd: [
      { name: "svg", title: "Download plot as an SVG", icon: Plotly.Icons.disk, click: () => save(Plotly, chart) },
      { name: "html", title: "Download plot as an HTML page", icon: PAGE_ICON, click: () => savePage(chart) },
      { name: "reset", title: "Reset zoom", icon: Plotly.Icons.home, click: () => reset(Plotly, chart) },
    ],
  });
  if (!chart.listens) listen(Plotly, chart);
}

function layoutOf(chart, layout, view) {
  const style = getComputedStyle(chart);
  const colour = (name) => style.getPropertyValue(`--st-${name}`).trim();
  const axis = (own, range) => ({
    ...own,
    gridcolor: colour("border-color"),
    linecolor: colour("border-color"),
    ...(range ? { range, autorange: false } : {}),
  });
  const [x, y] = chart.zoom ? [chart.zoom.slice(0, 2), chart.zoom.slice(2)] : [];
  return {
    ...layout,
    template: undefined,
    selections: chart.given.isBoxed ? chart.layout?.selections : [],
    uirevision: view,
    paper_bgcolor: "transparent",
    plot_bgcolor: "transparent",
    font: { color: colour("text-color"), family: style.fontFamily, size: 13 },
    hoverlabel: {
      ...layout.hoverlabel,
      bgcolor: colour("background-color"),
      bordercolor: colour("border-color"),
      font: { color: colour("text-color"), family: style.fontFamily },
    },
    modebar: { bgcolor: "transparent", color: colour("gray-text-color"), activecolor: colour("text-color") },
    xaxis: axis(layout.xaxis, x),
    yaxis: axis(layout.yaxis, y),
  };
}

function listen(Plotly, chart) {
  chart.listens = true;
  chart.on("plotly_click", ({ points }) => {
    const point = points.find((each) => Number.isInteger(each.customdata));
    if (point) chart.trigger("clicked", point.customdata);
  });
  chart.on("plotly_selected", (selected) => {
    const ids = (selected?.points ?? []).map((each) => each.customdata).filter(Number.isInteger);
    if (selected) chart.trigger("boxed", [...new Set(ids)]);
  });
  chart.on("plotly_deselect", () => chart.trigger("boxed", []));
  chart.on("plotly_relayout", (changed) => {
    if (Object.keys(changed).some((name) => /^[xy]axis\.range/.test(name))) keep(chart);
  });
  chart.on("plotly_doubleclick", () => reset(Plotly, chart));
  new ResizeObserver(() => chart.isConnected && Plotly.Plots.resize(chart)).observe(chart);
}

function keep(chart) {
  const { xaxis, yaxis } = chart.layout;
  chart.zoom = [...xaxis.range, ...yaxis.range].map((end) => Number(end.toPrecision(DIGITS)));
  told(chart);
}

function reset(Plotly, chart) {
  if (!chart.zoom) return;
  chart.zoom = null;
  told(chart);
  draw(Plotly, chart);
}

function told(chart) {
  chart.told.push(JSON.stringify(chart.zoom));
  chart.tell("zoom", chart.zoom ?? []); // null would not be told
}

// A page that needs no network: the library is in it.
async function savePage(chart) {
  const answer = await fetch(LIBRARY).catch(() => undefined);
  if (!answer?.ok) {
    window.alert("The page cannot be made: the server does not answer. Start it and try again.");
    return;
  }
  const library = (await answer.text()).replaceAll("</script", "<\\/script");
  const { figure, name, alt } = chart.given;
  const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
  const drawn = JSON.stringify({ data: figure.data, layout: { ...figure.layout, selections: [] } });
  const page = `<!doctype html><meta charset="utf-8"><title>${escaped(name)}</title>
<p style="font-family: sans-serif">${escaped(alt)}</p><div id="figure"></div>
<script>${library}</script>
<script>Plotly.newPlot("figure", ...Object.values(${drawn.replaceAll("<", "\\u003c")}));</script>`;
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([page], { type: "text/html" }));
  link.download = `${name}.html`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // some browsers read it later
}

function save(Plotly, chart) {
  Plotly.downloadImage(chart, { format: "svg", filename: chart.given.name });
}
