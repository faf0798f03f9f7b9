//! From root to somebody: root is needed to bind low ports and to read keys, and for nothing else. Who the process is
//! afterwards is looked at, not believed.

use crate::command::Failure;
use nix::unistd::{
    Gid, Group, Uid, User, getegid, geteuid, getgroups, getresgid, getresuid, initgroups, setresgid,
    setresuid, setuid,
};
use std::collections::BTreeSet;
use std::ffi::CString;
use std::path::Path;

/// Becomes a user, and a member of its groups; with a group, of that one as the first. For a process that is not
/// root and is asked to become what it is, nothing happens.
///
/// # Errors
/// If there is no such user or group, if the process is not root, or if anything of root would be left.
pub fn give_up(user: Option<&str>, group: Option<&str>) -> Result<(), Failure> {
    if user.is_none() && group.is_none() {
        if geteuid().is_root() {
            tracing::info!("this process stays root; say `user` to have it become somebody else");
        }
        return Ok(());
    }
    let Some(name) = user else {
        return Err(Failure("`group` needs `user`: a group alone takes nothing from root".into()));
    };
    let user = find_user(name)?;
    let group = match group {
        Some(name) => find_group(name)?,
        None => user.gid,
    };
    if user.uid.is_root() {
        return Err(Failure(format!("user {name} is root itself")));
    }
    if !geteuid().is_root() {
        if geteuid() == user.uid && getegid() == group {
            return Ok(());
        }
        return Err(Failure(format!("only root can become {name}: start as root, or say no `user`")));
    }
    let failed = |what: &str, error: nix::Error| Failure(format!("cannot become {name}: {what}: {error}"));
    let login = CString::new(user.name.as_bytes()).map_err(|_| Failure(format!("no user {name}")))?;
    initgroups(&login, group).map_err(|error| failed("its groups", error))?;
    setresgid(group, group, group).map_err(|error| failed("its group", error))?;
    setresuid(user.uid, user.uid, user.uid).map_err(|error| failed("its number", error))?;
    verify(name, user.uid, group)
}

/// Gives a directory that root has made, and the files in it, to whom the process becomes.
///
/// # Errors
/// If there is no such user or group, or the system refuses.
pub fn give_directory(user: Option<&str>, group: Option<&str>, directory: &Path) -> Result<(), Failure> {
    let Some(name) = user.filter(|_| geteuid().is_root()) else { return Ok(()) };
    let user = find_user(name)?;
    let group = group.map(find_group).transpose()?.unwrap_or(user.gid);
    let give = |path: &Path| std::os::unix::fs::lchown(path, Some(user.uid.as_raw()), Some(group.as_raw()));
    let all = give(directory)
        .and_then(|()| std::fs::read_dir(directory)?.try_for_each(|entry| give(&entry?.path())));
    all.map_err(|error| Failure(format!("cannot give {} to {name}: {error}", directory.display())))
}

/// Looks whether nothing of root is left, and that there is no way back.
fn verify(name: &str, uid: Uid, gid: Gid) -> Result<(), Failure> {
    let wrong = |what: &str| Failure(format!("became {name}, but {what}; this process must not serve"));
    let (uids, gids) = (getresuid()?, getresgid()?);
    if [uids.real, uids.effective, uids.saved] != [uid; 3]
        || [gids.real, gids.effective, gids.saved] != [gid; 3]
    {
        return Err(wrong("not in every respect"));
    }
    if getgroups()?.contains(&Gid::from_raw(0)) {
        return Err(wrong("is a member of root's group still"));
    }
    if setuid(Uid::from_raw(0)).is_ok() {
        return Err(wrong("could become root again"));
    }
    Ok(())
}

/// Says which keys the process could read as root and cannot read any more: a reload or a renewal would fail.
pub fn warn_of_unreadable<'p>(files: impl Iterator<Item = &'p Path>) {
    for file in files.collect::<BTreeSet<_>>() {
        let opened = std::fs::File::open(file);
        // One that is not there was not read as root either.
        if let Err(error) = opened
            && error.kind() != std::io::ErrorKind::NotFound
        {
            eprintln!(
                "eleven: warning: {} was read as root and cannot be read anew: {error}; let the user of this process read it",
                file.display()
            );
        }
    }
}

fn find_user(name: &str) -> Result<User, Failure> {
    let found = match name.parse::<u32>() {
        Ok(number) => User::from_uid(Uid::from_raw(number))?,
        Err(_) => User::from_name(name)?,
    };
    found.ok_or_else(|| Failure(format!("there is no user {name}; make it: useradd --system {name}")))
}

fn find_group(name: &str) -> Result<Gid, Failure> {
    if let Ok(number) = name.parse::<u32>() {
        return Ok(Gid::from_raw(number));
    }
    let found = Group::from_name(name)?;
    found.map(|group| group.gid).ok_or_else(|| Failure(format!("there is no group {name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of root is shown over the real binary, for a process that gave root up does not get it back.
    #[test]
    fn who_is_nobody_is_said() {
        for (user, group, word) in [
            (Some("no-such-user-11"), None, "no user"),
            (Some("nobody"), Some("no-such-group-11"), "no group"),
            (Some("root"), None, "root itself"),
            (None, Some("nogroup"), "needs `user`"),
        ] {
            let error = give_up(user, group).unwrap_err();
            assert!(error.0.contains(word), "{error}");
        }
        assert!(give_up(None, None).is_ok());
    }
}
