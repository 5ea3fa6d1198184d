// SPDX-License-Identifier: Apache-2.0
// Reads an object as viewers built on Cornerstone's adapters do, and prints what it found as JSON.
//   node cornerstone.mjs seg|seg-older|sr OBJECT SOURCE
import { readFileSync } from "node:fs";
import * as core from "@cornerstonejs/core";
import { adaptersSEG, adaptersSR } from "@cornerstonejs/adapters";
import dcmjs from "dcmjs";

console.info = console.warn = console.log = (...words) => console.error(...words);
const [kind, object, source] = process.argv.slice(2);

function read(path) {
  const file = readFileSync(path);
  const buffer = file.buffer.slice(file.byteOffset, file.byteOffset + file.byteLength);
  const data = dcmjs.data.DicomMessage.readFile(buffer);
  const dataset = dcmjs.data.DicomMetaDictionary.naturalizeDataset(data.dict);
  dataset._meta = dcmjs.data.DicomMetaDictionary.namifyDataset(data.meta);
  return { buffer, dataset };
}

const image = read(source).dataset;
const imageId = "source:1";
// An ultrasound image has no place in the patient: viewers give it the picture's own axes.
const modules = {
  imagePlaneModule: {
    rows: image.Rows, columns: image.Columns,
    rowCosines: [1, 0, 0], columnCosines: [0, 1, 0], imageOrientationPatient: [1, 0, 0, 0, 1, 0],
    imagePositionPatient: [0, 0, 0], rowPixelSpacing: 1, columnPixelSpacing: 1, pixelSpacing: [1, 1],
    frameOfReferenceUID: "1.2.3",
  },
  generalSeriesModule: { seriesInstanceUID: image.SeriesInstanceUID, modality: "US" },
  generalImageModule: { sopInstanceUID: image.SOPInstanceUID },
  sopCommonModule: { sopInstanceUID: image.SOPInstanceUID, sopClassUID: image.SOPClassUID },
  instance: image,
};
const metadata = { get: (name, id) => (id === imageId ? modules[name] : undefined) };
core.metaData.addProvider((name, id) => metadata.get(name, id), 10000);

async function segmentation() {
  const { buffer } = read(object);
  const { Cornerstone3D } = adaptersSEG;
  const older = kind === "seg-older";
  const state = older
    ? await Cornerstone3D.Segmentation.generateToolState([imageId], buffer, metadata, false, 1e-3, 3)
    : await Cornerstone3D.Segmentation.createFromDICOMSegBuffer([imageId], buffer, { metadataProvider: metadata });
  const images = state.labelMapImages?.flat();
  const pixels = images ? Array.from(images[0].getPixelData()) : Array.from(new Uint8Array(state.labelmapBufferArray[0]));
  const segments = state.segMetadata.data.filter((segment) => segment);
  return { pixels, segments: segments.map((segment) => segment.SegmentLabel) };
}

function report() {
  const state = adaptersSR.Cornerstone3D.MeasurementReport.generateToolState(
    read(object).dataset, { [`${image.SOPInstanceUID}:1`]: imageId }, metadata);
  return {
    tools: Object.keys(state),
    measurements: Object.values(state).flat().map(({ annotation, finding }) => ({
      label: annotation.data.label, finding: finding?.CodeMeaning,
      polyline: annotation.data.contour?.polyline.map((point) => [point[0], point[1]]),
      statistics: annotation.data.cachedStats,
    })),
  };
}

const found = kind === "sr" ? report() : await segmentation();
process.stdout.write(JSON.stringify(found));
process.exit(0);
