"""Import other tools' pipelines, and older versions of FlowyML's. Heavy libraries load on use."""
