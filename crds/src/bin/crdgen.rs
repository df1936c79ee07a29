//! Writes every CustomResourceDefinition to the folder that its argument names (`make generate`).

use std::{env, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(env::args().nth(1).ok_or("usage: crdgen FOLDER")?);
    for crd in lectern_crds::all() {
        let name = crd.spec.names.plural.clone();
        let text = format!("# Made by `make generate`; change the types in crds/src instead.\n{}", serde_yaml::to_string(&crd)?);
        fs::write(folder.join(format!("{name}.yaml")), text)?;
    }
    Ok(())
}
