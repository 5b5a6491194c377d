"""Methods that find, test, name and remove encoded absences; none imports a host."""
