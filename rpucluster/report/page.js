const figures = JSON.parse(document.getElementById("figures").textContent);
const narrow = window.matchMedia("(max-width: 760px)").matches;
for (const [id, figure] of Object.entries(figures)) {
  if (narrow) {
    figure.layout.font.size = 11;
    figure.layout.margin = { l: 8, r: 8, t: 8, b: 40 };
    // lane names would take half of a phone's width: the short form keeps the accelerator's number
    const axis = figure.layout.yaxis;
    if (axis.ticktext) {
      figure.layout.xaxis.title.text = figure.layout.xaxis.title.text.replace(" since the step began", "");
      axis.ticktext = axis.ticktext.map((text) => text.replace("accelerator ", "").replace("communication", "comm."));
    }
  }
  Plotly.newPlot(id, figure.data, figure.layout, {
    responsive: true,
    displayModeBar: false,
  });
}
