"""Ways into FlowyML: what reads other tools' pipelines, and older versions of this one. Heavy libraries load on use."""
