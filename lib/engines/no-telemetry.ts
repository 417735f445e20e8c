// ONNX Runtime keeps a database of events in the user's cache folder and looks its vendor's host up, unless this is
// set before its library is loaded. Imported before anything that loads it.
process.env["ORT_DISABLE_TELEMETRY"] = "1";
